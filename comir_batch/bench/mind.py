"""Search by self-similarity: descriptors that modalities share, compared at every angle and shift.

Modality independent neighbourhood descriptors (Heinrich et al., Medical Image Analysis 2012) say how much a pixel's
surroundings differ from those of its neighbours. They do not turn with the image, so they are made anew at each angle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from comir_batch.core.transform import Composite
from comir_batch.registration.search import Compared, coarse_to_fine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import RegistrationImage
    from comir_batch.registration.scores import Overlap, Transforms

_NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0))
_PATCH_SIGMA = 0.5  # of the weights of a patch, in pixels
_LEAST_VARIANCE = 1e-3  # of its mean, so that nothing is divided by the variance of flat ground
_RIM = 2  # pixels beside what does not count, whose surroundings are not all known


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

    def __init__(
        self, fixed: RegistrationImage, _moving: RegistrationImage, transforms: Transforms, least: float
    ) -> None:
        self._least, self._transforms = least, transforms
        self._fixed = self._spectra(fixed.pixels, fixed.mask)
        (self._inside,) = transforms.spectra([fixed.mask.astype(np.float32)])

    def overlap(self, mask: NDArray[np.bool_]) -> Overlap:
        """Return the overlap of a moving mask."""
        return self._transforms.overlap(self._inside, mask)

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_], _overlap: Overlap) -> NDArray[np.float32]:
        """Return a score for each shift of a moving image; -inf for shifts that overlap too little.

        Less counts than overlaps: nothing at the rim of the masks.
        """
        correlated = self._transforms.correlated
        (inside, squares, *planes), (other, other_squares, *others) = self._fixed, self._spectra(pixels, mask)
        count = correlated(inside, other)
        products = sum(correlated(a, b) for a, b in zip(planes, others, strict=True))
        apart = correlated(squares, other) + correlated(inside, other_squares) - 2 * products
        enough = count >= self._least
        scores = np.full(count.shape, -np.inf, dtype=np.float32)
        scores[enough] = -apart[enough] / count[enough]
        return scores

    def likelihood(self, standard: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return standard scores as they are: only their order matters."""
        return standard

    def _spectra(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
        inside = ndimage.binary_erosion(mask, iterations=_RIM).astype(np.float32)
        planes = descriptor(pixels, mask) * inside
        return self._transforms.spectra([inside, (planes**2).sum(axis=0), *planes])


def mind_rigid(fixed: RegistrationImage, moving: RegistrationImage, config: RegisterConfig) -> Composite | None:
    """Return the turn, perhaps mirrored, and the shift at which descriptors differ least; None where nothing overlaps.

    Searched as `registration.search` does.
    """
    found = coarse_to_fine([Compared(fixed, moving, SelfSimilarity)], config)
    best = max(found.fine[0], key=lambda peak: peak.score, default=None)
    return None if best is None else Composite((found.level.transform(best),))
