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

    Spectra = NDArray[np.complex64]

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

    @property
    def inside(self) -> bool:
        """Whether it is not at the end of what was looked at, where a slope looks like a peak."""
        return self.end < REACH - 1

    @property
    def end(self) -> float:
        """How near it is to the end of what was looked at: the larger of its two shifts."""
        return max(abs(self.x), abs(self.y))


def fixed_spectra(tile: NDArray[np.float32], valid: NDArray[np.bool_]) -> Spectra:
    """Return the spectra of a fixed tile's grey levels; of its pixels only the inner ones count.

    Parameters
    ----------
    tile : (SIDE, SIDE) float32
        In grey.
    valid : (SIDE, SIDE) bool
        Which pixels count; the outer ones never do, so that every shift compares as many.
    """
    inner = np.zeros_like(valid)
    inner[REACH:-REACH, REACH:-REACH] = valid[REACH:-REACH, REACH:-REACH]
    return np.conj(moving_spectra(tile, inner))


def moving_spectra(tile: NDArray[np.float32], valid: NDArray[np.bool_]) -> Spectra:
    """Return the spectra of a moving tile's grey levels, each of which holds as many of the pixels that count."""
    spectra: Spectra = fft.rfft2(_level_sets(tile, valid))
    return spectra


def _level_sets(tile: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    detail = tile - cv2.GaussianBlur(tile, (0, 0), _DETAIL_PIXELS)
    values = detail[valid] if valid.any() else np.zeros(1, np.float32)
    limits = np.quantile(values, np.arange(1, _LEVELS) / _LEVELS).astype(np.float32)
    above = np.stack([np.where(valid, detail > limit, False) for limit in limits])  # noqa: FBT003  numpy's own
    sets = np.concatenate([valid[None] & ~above[:1], above[:-1] & ~above[1:], above[-1:]])
    return sets.astype(np.float32)


def find_peak(tiles: Sequence[tuple[Spectra, Spectra]]) -> Peak:
    """Return the peak of the information of all tiles together; z is 0 where nothing can be compared.

    Parameters
    ----------
    tiles : sequence of (Spectra, Spectra)
        Fixed and moving, of the same places.
    """
    if not tiles:
        return Peak(0.0, 0.0, 0.0)
    crossed = sum(fixed[:, None] * moving[None] for fixed, moving in tiles)
    shifts = np.arange(-REACH, REACH + 1)
    joint = fft.irfft2(crossed, (SIDE, SIDE))[:, :, shifts[:, None], shifts]
    return _peak(_information(np.maximum(joint, 0)))


def find_far_peak(
    fixed: NDArray[np.float32],
    fixed_valid: NDArray[np.bool_],
    moving: NDArray[np.float32],
    moving_valid: NDArray[np.bool_],
) -> Peak:
    """Return the peak over all shifts by up to half of two whole images ``(Y, X)``, of which some pixels count.

    What counts is the information of all pixels that a shift compares, not of one: the fewer they are, the more do they
    share by chance.
    """
    shape = [2 * length for length in fixed.shape]  # so that nothing comes in again at the other side
    first, second = (
        fft.rfft2(_level_sets(pixels, valid), shape) for pixels, valid in ((fixed, fixed_valid), (moving, moving_valid))
    )
    y, x = (np.arange(-(length // 2), length // 2 + 1) for length in fixed.shape)
    joint = np.maximum(fft.irfft2(np.conj(first)[:, None] * second[None], shape)[:, :, y[:, None], x], 0)
    return _peak(joint.sum(axis=(0, 1)) * _information(joint))


def _peak(surface: NDArray[np.float64]) -> Peak:
    """Return the highest place of a surface over shifts, none of which is in its middle; NaN is not known."""
    known = np.isfinite(surface)
    if not known.any():
        return Peak(0.0, 0.0, 0.0)
    middle = float(np.median(surface[known]))
    spread = 1.4826 * float(np.median(np.abs(surface[known] - middle)))
    best = np.where(known, surface, -np.inf)
    y, x = (int(place) for place in np.unravel_index(int(best.argmax()), best.shape))
    z = (float(best[y, x]) - middle) / spread if spread > 0 else 0.0
    rows, columns = (length // 2 for length in best.shape)
    return Peak(_between(best[y], x) - columns, _between(best[:, x], y) - rows, z)


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
