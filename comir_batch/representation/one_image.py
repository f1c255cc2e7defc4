"""One image of a representation with several channels, for registration, which compares single images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PIXELS = 1_000_000  # of each, at most, that decide


def as_one_image(
    pair: tuple[NDArray[np.float32], NDArray[np.float32]], masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return one image of each of two representations: its channel, or several projected on `principal_axis`.

    Parameters
    ----------
    pair : ((C, Y, X) float32, (C, Y', X') float32)
        Of the fixed and of the moving image.
    masks : ((Y, X) bool, (Y', X') bool)
        Pixels that count.

    Returns
    -------
    (Y, X) float32, (Y', X') float32
    """
    if all(len(pixels) == 1 for pixels in pair):
        return pair[0][0], pair[1][0]
    known = [np.flatnonzero(mask & np.isfinite(pixels).all(axis=0)) for pixels, mask in zip(pair, masks, strict=True)]
    fixed, moving = (
        pixels.reshape(len(pixels), -1)[:, index[:: 1 + len(index) // _PIXELS]]
        for pixels, index in zip(pair, known, strict=True)
    )
    axis = principal_axis(fixed, moving)
    first, second = (np.asarray(np.tensordot(axis, pixels, 1), np.float32) for pixels in pair)
    return first, second


def principal_axis(fixed: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the direction in which the channels of two representations vary most.

    Both must be seen along one axis, or the images would not be alike: it is the first principal axis of the mean of
    the two covariances. Each slide counts as much as the other, however much tissue it has, and a constant between the
    two decides nothing, as it does not in the correlation that follows. Of the two signs the one is taken that makes
    the largest component positive.

    Parameters
    ----------
    fixed, moving : (C, N) and (C, M) float32
        Channels of the pixels with tissue.

    Returns
    -------
    (C,) float32
        Of unit length.
    """
    covariance = sum(np.cov(pixels.astype(np.float64)) for pixels in (fixed, moving))
    axis = np.linalg.eigh(covariance).eigenvectors[:, -1]
    return np.asarray(axis * np.sign(axis[np.abs(axis).argmax()]), np.float32)
