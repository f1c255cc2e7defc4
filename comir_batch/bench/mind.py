"""Search by self-similarity: descriptors that modalities share, compared at every angle and shift.

Modality independent neighbourhood descriptors (Heinrich et al., Medical Image Analysis 2012) say how much a pixel's
surroundings differ from those of its neighbours. They do not turn with the image, so they are made anew at each angle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from comir_batch.core.transform import Composite
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.scores import Transforms
from comir_batch.registration.turntable import Turntable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import RegistrationImage
    from comir_batch.registration.turntable import Peak

_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_PATCH_SIGMA = 0.5  # of the weights of a patch, in pixels
_LEAST_VARIANCE = 1e-3  # of its mean, so that nothing is divided by the variance of flat ground
_RIM = 2  # pixels beside what does not count, whose surroundings are not all known
_KEPT, _APART_DEG = 3, 6.0
_FINE_DEG = 0.5


def descriptor(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the ``(4, Y, X)`` self-similarity of ``(Y, X)`` pixels, one plane a neighbour; the largest of four is 1.

    ``exp(-D / V)``: `D` is the mean squared difference of two patches, `V` the mean of `D` over the neighbours.
    """
    filled = np.where(mask, pixels, pixels[mask].mean() if mask.any() else 0.0).astype(np.float32)
    squares = ((filled - np.roll(filled, shift, axis=(0, 1))) ** 2 for shift in _NEIGHBOURS)
    distances = np.stack([ndimage.gaussian_filter(square, _PATCH_SIGMA) for square in squares])
    variance = distances.mean(axis=0)
    floor = max(_LEAST_VARIANCE * float(variance.mean()), float(np.finfo(np.float32).tiny))
    similar = np.exp(-distances / np.maximum(variance, floor))
    return np.asarray(similar / similar.max(axis=0), dtype=np.float32)


class SelfSimilarity:
    """A scorer for the search: the negative mean squared difference of descriptors over each overlap."""

    def __init__(self, fixed: RegistrationImage, transforms: Transforms, least: float) -> None:
        self._least, self._transforms = least, transforms
        self._fixed = self._spectra(fixed.pixels, fixed.mask)

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return a score for each shift of a moving image; -inf for shifts that overlap too little."""
        correlated = self._transforms.correlated
        (inside, squares, *planes), (other, other_squares, *others) = self._fixed, self._spectra(pixels, mask)
        count = correlated(inside, other)
        products = sum(correlated(a, b) for a, b in zip(planes, others, strict=True))
        apart = correlated(squares, other) + correlated(inside, other_squares) - 2 * products
        enough = count >= self._least
        scores = np.full(count.shape, -np.inf, dtype=np.float32)
        scores[enough] = -apart[enough] / count[enough]
        return scores

    def _spectra(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
        inside = ndimage.binary_erosion(mask, iterations=_RIM).astype(np.float32)
        planes = descriptor(pixels, mask) * inside
        return self._transforms.spectra([inside, (planes**2).sum(axis=0), *planes])


def mind_rigid(fixed: RegistrationImage, moving: RegistrationImage, config: RegisterConfig) -> Composite | None:
    """Return the turn, perhaps mirrored, and the shift at which descriptors differ least; None where nothing overlaps.

    Every angle of the search at half its side; about the best three, every half degree at its full side.
    """
    sides = config.search_side // 2, config.search_side
    coarse, fine = (_Level(fixed, moving, side, config.min_overlap) for side in sides)
    step = 360.0 / config.angles
    angles, turns = step * np.arange(config.angles), np.arange(-step / 2, step / 2 + _FINE_DEG / 2, _FINE_DEG)
    kept = _distinct(coarse.best((angle, mirrored) for mirrored in (False, True) for angle in angles))
    peaks = fine.best((peak.angle + turn, peak.mirrored) for peak in kept for turn in turns)
    best = max(peaks, key=lambda peak: peak.score, default=None)
    if best is None or not math.isfinite(best.score):
        return None
    return Composite((fine.table.transform(best, fine.fixed.grid),))


class _Level:
    """Both images at one pixel size."""

    def __init__(self, fixed: RegistrationImage, moving: RegistrationImage, side: int, min_overlap: float) -> None:
        mpp = common_mpp(fixed, moving, side)
        self.fixed, turned = coarsened(fixed, mpp), coarsened(moving, mpp)
        self.table = Turntable(turned)
        least = min_overlap * min(np.count_nonzero(self.fixed.mask), np.count_nonzero(turned.mask))
        shape = self.table.transform_shape(self.fixed.mask, least)
        self._scorer = SelfSimilarity(self.fixed, Transforms(shape), least)

    def best(self, turns: Iterable[tuple[float, bool]]) -> list[Peak]:
        """Return the best shift at each angle, mirrored or not."""
        return [self.table.best(self._scorer, angle, mirrored=mirrored) for angle, mirrored in turns]


def _distinct(peaks: Sequence[Peak]) -> list[Peak]:
    chosen: list[Peak] = []
    for peak in sorted(peaks, key=lambda peak: -peak.score):
        near = (p.mirrored == peak.mirrored and _turn_between(p.angle, peak.angle) <= _APART_DEG for p in chosen)
        if len(chosen) < _KEPT and math.isfinite(peak.score) and not any(near):
            chosen.append(peak)
    return chosen


def _turn_between(first: float, second: float) -> float:
    turn = abs(first - second) % 360.0
    return min(turn, 360.0 - turn)
