"""Mutual information of two raw images over small shifts, from tiles: where its peak lies, and how clear it is.

Every tile gives a joint histogram of grey levels for each shift, by cross-correlating level sets (Öfverstedt et al.,
Pattern Recognition Letters 2022). Those of many tiles are added before their information is taken. Slow changes of
brightness, which two stains share wherever they lie, are removed first, so that the peak is as narrow as the structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Spectrum = NDArray[np.complex64]

REACH = 24
"""Largest shift along each axis that is looked at, in pixels."""
SIDE = 144
"""Side of a tile in pixels, what its shifts reach included."""
_LEVELS = 5
_DETAIL_PIXELS = 4.0
_LEAST_SHARE = 0.3  # of the pixels that the best covered shift compares


class Peak(NamedTuple):
    """Where the information is highest.

    Attributes
    ----------
    x, y : float
        By how many pixels the moving image lies to the right of and below the fixed one.
    z : float
        How far the peak stands out of all shifts, in robust standard deviations.
    """

    x: float
    y: float
    z: float


def tile_spectrum(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], valid: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> Spectrum:
    """Return the cross spectra of a tile's level sets; spectra of several tiles can be added.

    Parameters
    ----------
    fixed, moving : (SIDE, SIDE) float32
        The same place of both images, in grey.
    valid : (bool array, bool array)
        Which pixels of each count; of the fixed image only the inner ones are compared, so that every shift compares
        as many.
    """
    inner = np.zeros(valid[0].shape, dtype=bool)
    inner[REACH:-REACH, REACH:-REACH] = valid[0][REACH:-REACH, REACH:-REACH]
    first, second = _level_sets(fixed, inner), _level_sets(moving, valid[1])
    return np.asarray(np.conj(first)[:, None] * second[None], dtype=np.complex64)


def _level_sets(image: NDArray[np.float32], mask: NDArray[np.bool_]) -> Spectrum:
    detail = image - cv2.GaussianBlur(image, (0, 0), _DETAIL_PIXELS)
    values = detail[mask] if mask.any() else np.zeros(1, np.float32)
    limits = np.quantile(values, np.arange(1, _LEVELS) / _LEVELS)
    labels = np.where(mask, np.searchsorted(limits, detail), -1)
    spectra: Spectrum = fft.rfft2(np.stack([(labels == level).astype(np.float32) for level in range(_LEVELS)]))
    return spectra


def find_peak(spectra: Sequence[Spectrum]) -> Peak:
    """Return the peak of the information of all tiles together; z is 0 where nothing can be compared."""
    if not spectra:
        return Peak(0.0, 0.0, 0.0)
    shifts = np.arange(-REACH, REACH + 1)
    joint = fft.irfft2(sum(spectra), (SIDE, SIDE))[:, :, shifts[:, None], shifts]
    information = _information(np.maximum(joint, 0))
    known = np.isfinite(information)
    if not known.any():
        return Peak(0.0, 0.0, 0.0)
    middle = float(np.median(information[known]))
    spread = 1.4826 * float(np.median(np.abs(information[known] - middle)))
    best = np.where(known, information, -np.inf)
    y, x = np.unravel_index(int(best.argmax()), best.shape)
    z = (float(best[y, x]) - middle) / spread if spread > 0 else 0.0
    return Peak(_between(best[y], int(x)) - REACH, _between(best[:, x], int(y)) - REACH, z)


def _information(joint: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mutual information in nats of ``(K, K, Y, X)`` joint histograms; NaN where too little is compared."""
    total = joint.sum(axis=(0, 1))
    enough = total >= max(_LEAST_SHARE * total.max(), 1.0)
    share = joint.astype(np.float64) / np.where(enough, total, 1)
    apart = share.sum(axis=0, keepdims=True) * share.sum(axis=1, keepdims=True)
    present = share > 0
    terms = np.zeros_like(share)
    terms[present] = share[present] * np.log(share[present] / apart[present])
    return np.where(enough, terms.sum(axis=(0, 1)), np.nan)


def _between(line: NDArray[np.float64], at: int) -> float:
    """Return the place of a peak between pixels, by the parabola through it and its neighbours."""
    if not 0 < at < len(line) - 1:
        return float(at)
    low, middle, high = line[at - 1 : at + 2].tolist()
    bend = low - 2 * middle + high
    return at + 0.5 * (low - high) / bend if np.isfinite(bend) and bend < 0 else float(at)
