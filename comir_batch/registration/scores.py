"""Scores of every shift of two images of one pixel size, by FFT.

Scores count how much overlaps, so that a small accidental match does not beat a large true one: normalised correlation
as ``atanh(ncc) * sqrt(n)`` (Fisher's transform: standard normal for ``n`` independent samples of unrelated images),
masked after Padfield (IEEE TIP 2012), and mutual information of a few grey levels less its bias for ``n`` samples, all
shifts at once by cross-correlating level sets (Öfverstedt et al., Pattern Recognition Letters 2022).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cv2
import numpy as np

from comir_batch.registration.coarse import GreyLevels, shared_area

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.registration.images import RegistrationImage

    Plane = NDArray[np.float32]


class Overlap(NamedTuple):
    """A moving mask's spectrum, and how many pixels of it lie on the fixed mask at each shift."""

    spectrum: Plane
    pixels: Plane


class Scorer(Protocol):
    """Compares one fixed image with moving ones."""

    def overlap(self, mask: NDArray[np.bool_]) -> Overlap:
        """Return the overlap of a moving mask, which all scorers of images with the same masks share."""

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_], overlap: Overlap) -> NDArray[np.float32]:
        """Return a score for each shift of a moving image; -inf for shifts that overlap too little."""

    def likelihood(self, standard: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the nats by which standard scores, see `chance.Chance`, speak against chance; -inf for -inf."""


class Transforms(NamedTuple):
    """Real FFTs of one size, packed as OpenCV does (which is several times as fast as scipy's where it has IPP)."""

    shape: tuple[int, int]

    def spectra(self, planes: Sequence[Plane]) -> list[Plane]:
        """Return the packed FFT of each plane, zero beyond it."""
        return [self._spectrum(plane) for plane in planes]

    def correlated(self, fixed: Plane, moving: Plane) -> Plane:
        """Return the cross-correlation of two planes from their spectra; index ``(y, x)`` is the shift."""
        product = cv2.mulSpectrums(moving, fixed, 0, conjB=True)
        return np.asarray(cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE), dtype=np.float32)

    def overlap(self, inside: Plane, mask: NDArray[np.bool_]) -> Overlap:
        """Return the overlap of a moving mask with the fixed one of a spectrum."""
        spectrum = self._spectrum(mask.astype(np.float32))
        return Overlap(spectrum, self.correlated(inside, spectrum))

    def _spectrum(self, plane: Plane) -> Plane:
        padded = np.zeros(self.shape, np.float32)
        padded[: plane.shape[0], : plane.shape[1]] = plane
        return np.asarray(cv2.dft(padded), dtype=np.float32)  # to name the rows that are not zero would keep IPP out


class Correlation:
    """Masked normalised cross-correlation."""

    def __init__(
        self, fixed: RegistrationImage, moving: RegistrationImage, transforms: Transforms, least: float
    ) -> None:
        self._least, self._transforms = least, transforms
        self._area = shared_area(fixed, moving)
        self._inside, *self._moments = transforms.spectra(
            [fixed.mask.astype(np.float32), *_moments(fixed.pixels, fixed.mask)]
        )

    def overlap(self, mask: NDArray[np.bool_]) -> Overlap:
        """Return the overlap of a moving mask."""
        return self._transforms.overlap(self._inside, mask)

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_], overlap: Overlap) -> NDArray[np.float32]:
        """Return Fisher's transform of the correlation over each overlap, times the root of the samples in it."""
        (moving, count), moments = overlap, self._transforms.spectra(_moments(pixels, mask))
        correlated = self._transforms.correlated
        enough = count >= self._least
        n, sum_f, squares_f, sum_m, squares_m, product = (
            plane[enough]
            for plane in (
                count,
                *(correlated(moment, moving) for moment in self._moments),
                *(correlated(self._inside, moment) for moment in moments),
                correlated(self._moments[0], moments[0]),
            )
        )
        variance = (squares_f - sum_f**2 / n) * (squares_m - sum_m**2 / n)
        covariance = product - sum_f * sum_m / n
        ncc = covariance / np.sqrt(np.maximum(variance, (1e-4 * n) ** 2))
        scores = np.full(count.shape, -np.inf, dtype=np.float32)
        scores[enough] = np.arctanh(np.clip(ncc, -0.999, 0.999)) * np.sqrt(n / self._area)
        return scores

    def nats(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return half the square of scores above zero: those of standard normal variables."""
        return np.where(np.isfinite(scores), normal_nats(scores), scores)

    likelihood = nats


def _moments(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Return values and squares, standardised over the mask so that float32 suffices for their sums."""
    inside = pixels[mask] if mask.any() else np.zeros(1, np.float32)
    values = np.where(mask, (pixels - inside.mean()) / (inside.std() or 1.0), 0).astype(np.float32)
    return [values, values**2]


class Information:
    """Mutual information of quantised grey levels."""

    def __init__(
        self, fixed: RegistrationImage, moving: RegistrationImage, transforms: Transforms, least: float
    ) -> None:
        self._least, self._transforms = least, transforms
        self._area = shared_area(fixed, moving)
        self._samples = np.count_nonzero(fixed.mask) / self._area
        self._levels = GreyLevels.of(moving.pixels[moving.mask])
        sets = _level_sets(GreyLevels.of(fixed.pixels[fixed.mask]), fixed.pixels, fixed.mask)
        self._inside, *self._fixed = transforms.spectra([fixed.mask.astype(np.float32), *sets])

    def overlap(self, mask: NDArray[np.bool_]) -> Overlap:
        """Return the overlap of a moving mask."""
        return self._transforms.overlap(self._inside, mask)

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_], overlap: Overlap) -> NDArray[np.float32]:
        """Return `information_score` of each overlap."""
        moving = self._transforms.spectra(_level_sets(self._levels, pixels, mask))
        enough = overlap.pixels >= self._least
        joint = [[self._transforms.correlated(level, other)[enough] for other in moving] for level in self._fixed]
        scores = np.full(enough.shape, -np.inf, dtype=np.float32)
        scores[enough] = information_score(np.array(joint), self._area)
        return scores

    def nats(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the information of as many samples as the geometric mean of the overlap and all of the fixed image."""
        return np.asarray(scores * np.float32(math.sqrt(self._samples)), dtype=np.float32)

    def likelihood(self, standard: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `information_nats` of standard scores."""
        nats = information_nats(standard, self._levels.count)
        return np.where(np.isfinite(standard), nats, standard).astype(np.float32)


def _level_sets(levels: GreyLevels, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    labels = np.where(mask, levels.label(pixels), -1)
    return [(labels == level).astype(np.float32) for level in range(levels.count)]


def information_score(joint: NDArray[np.float32], area: float) -> NDArray[np.float32]:
    """Return ``(MI - bias) * sqrt(n)`` in nats from joint histograms; the bias is ``(K - 1)^2 / 2n`` (Miller, 1955).

    Parameters
    ----------
    joint : (K, K, N) float32
        Counts of each pair of grey levels; N alignments.
    area : float
        Pixels that are worth one independent sample, ``n = counts / area``.
    """
    total = joint.sum(axis=(0, 1))
    information = (
        _n_log_n(joint).sum(axis=(0, 1))
        - _n_log_n(joint.sum(axis=0)).sum(axis=0)
        - _n_log_n(joint.sum(axis=1)).sum(axis=0)
        + _n_log_n(total)
    ) / total
    n = total / area
    scores: NDArray[np.float32] = (information - (len(joint) - 1) ** 2 / (2 * n)) * np.sqrt(n)
    return scores


def normal_nats(standard: Plane) -> Plane:
    """Return the log-likelihood ratio of standard normal scores to chance: half their square, 0 below it."""
    return np.asarray(np.maximum(standard, 0) ** 2 / 2, dtype=np.float32)


def information_nats(standard: Plane, levels: int) -> Plane:
    """Return the log-likelihood ratio of standard scores of information to chance, 0 below it.

    ``2n`` times the information of ``n`` samples has a chi-squared distribution (Wilks, Ann. Math. Stat. 1938), whose
    standard deviation tells what ``n`` is.
    """
    return np.asarray(np.maximum(standard, 0) * math.sqrt((levels - 1) ** 2 / 2), dtype=np.float32)


def _n_log_n(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    return counts * np.log(np.maximum(counts, 0.5))  # FFT noise about zero counts as zero
