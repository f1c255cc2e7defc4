"""How the next pyramid level is made: area means, and of labels the most frequent one."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPENCV_TYPES = ("uint8", "uint16", "int16", "float32", "float64")
_OPENCV_MAX_FACTOR = 16  # its 16-bit sums are float32, exact up to 2**24


def reduce_area(pixels: NDArray[np.generic], factor: int) -> NDArray[np.generic]:
    """Return the means of ``factor`` by ``factor`` pixels.

    A last incomplete row or column is the mean of the pixels that are there, so nothing of the image is lost. Pixels
    that are no numbers do not count either, or they would spread from level to level; where there are no others, NaN.

    Parameters
    ----------
    pixels : (C, Y, X) array
        Of any real dtype.
    factor : int
        Pixels along each axis that become one.

    Returns
    -------
    (C, ceil(Y / factor), ceil(X / factor)) array
        In the dtype of ``pixels``; integers are rounded to the nearest.

    Raises
    ------
    ValueError
        If the factor is below 1.
    """
    if factor < 1:
        raise ValueError(f"the factor must be at least 1, not {factor}")
    if factor == 1:
        return pixels
    channels, height, width = pixels.shape
    reduced: NDArray[np.generic] = np.empty((channels, -(-height // factor), -(-width // factor)), pixels.dtype)
    for (rows, y, fy), (columns, x, fx) in product(_parts(height, factor), _parts(width, factor)):
        means = _means(pixels[:, rows, columns], fy, fx)
        if means.dtype.kind == "f" and not (known := np.isfinite(means)).all():
            means = np.where(known, means, _finite_means(pixels[:, rows, columns], fy, fx))
        reduced[:, y, x] = means
    return reduced


def halve_labels(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the most frequent label of each 2 by 2 pixels; of equally frequent ones the first, row by row.

    Parameters
    ----------
    labels : (C, Y, X) array
        Of integers.

    Returns
    -------
    (C, ceil(Y / 2), ceil(X / 2)) array
        In the dtype of ``labels``, with no label that was not there.
    """
    _, height, width = labels.shape
    even = np.pad(labels, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    a, b, c, d = (even[:, y::2, x::2] for y in (0, 1) for x in (0, 1))
    second = (b == c) | (b == d)
    first = (a == b) | (a == c) | (a == d) | ~(second | (c == d))
    return np.asarray(np.where(first, a, np.where(second, b, c)))


def _parts(size: int, factor: int) -> list[tuple[slice, slice, int]]:
    """Cut an axis into its complete groups and the incomplete rest: input, output and pixels in a group."""
    whole = size // factor
    body = (slice(0, whole * factor), slice(0, whole), factor)
    rest = (slice(whole * factor, size), slice(whole, whole + 1), size % factor)
    return [part for part in (body, rest) if part[0].stop > part[0].start]


def _means(pixels: NDArray[np.generic], fy: int, fx: int) -> NDArray[np.generic]:
    channels, height, width = pixels.shape
    rows, columns = height // fy, width // fx
    if fy == fx <= _OPENCV_MAX_FACTOR and pixels.dtype.name in _OPENCV_TYPES:
        return np.stack([cv2.resize(channel, (columns, rows), interpolation=cv2.INTER_AREA) for channel in pixels])
    means: NDArray[np.float64] = pixels.reshape(channels, rows, fy, columns, fx).mean(axis=(2, 4), dtype=np.float64)
    exact = np.issubdtype(pixels.dtype, np.floating)
    return np.asarray((means if exact else np.rint(means)).astype(pixels.dtype))


def _finite_means(pixels: NDArray[np.generic], fy: int, fx: int) -> NDArray[np.generic]:
    channels, height, width = pixels.shape
    groups = pixels.reshape(channels, height // fy, fy, width // fx, fx)
    finite = np.isfinite(groups)
    sums = np.where(finite, groups, 0).sum(axis=(2, 4), dtype=np.float64)
    with np.errstate(invalid="ignore"):  # NaN where there is nothing to count
        return np.asarray((sums / finite.sum(axis=(2, 4))).astype(pixels.dtype))
