"""Dimensional collapse: how many dimensions of a space of features are used, from the spectrum of their covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

COLLAPSED = 1e-6
"""Share of the largest singular value below which a dimension counts as collapsed."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of the covariance of features (Jing et al., ICLR 2022, arXiv 2110.09348).

    Attributes
    ----------
    samples : int
        M, the number of feature vectors; no more than M - 1 singular values can differ from zero.
    values : tuple of float
        The d singular values, largest first.
    """

    samples: int
    values: tuple[float, ...]

    @property
    def dimensions(self) -> int:
        """Length of a feature vector, d."""
        return len(self.values)

    @property
    def effective_rank(self) -> float:
        """``exp(H)`` with the entropy ``H`` of the singular values' shares (Roy and Vetterli, EUSIPCO 2007); 0 of none.

        It is 1 where one direction has all the variance, and d where all have the same.
        """
        shares = np.array(self.values) / (sum(self.values) or 1.0)
        shares = shares[shares > 0]
        return float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else 0.0

    @property
    def stable_rank(self) -> float:
        """``(sum of s)**2 / sum of s**2``, which heeds the large singular values more; 0 of none."""
        values = np.array(self.values)
        return float(values.sum() ** 2 / ((values**2).sum() or 1.0))

    @property
    def collapsed(self) -> int:
        """Number of dimensions whose singular value is below ``COLLAPSED`` of the largest."""
        values = np.array(self.values)
        return int((values <= COLLAPSED * values[0]).sum())

    @property
    def relative(self) -> tuple[float, ...]:
        """Singular values as shares of the largest; zeros where that is zero."""
        return tuple(value / (self.values[0] or 1.0) for value in self.values)


def spectrum(features: ArrayLike) -> Spectrum:
    """Return the singular values of ``C = (1 / M) sum (z - mean)(z - mean)^T`` of M feature vectors.

    Parameters
    ----------
    features : (M, d)
        Any numbers; computed in float64.

    Raises
    ------
    ValueError
        If there are fewer than two vectors, or numbers that are not finite.
    """
    vectors = np.asarray(features, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"features of shape {vectors.shape} are no (M, d) with M of 2 or more")
    if not np.isfinite(vectors).all():
        raise ValueError("features are not finite")
    # The singular values of the covariance are the squares of those of the centred vectors, without squaring the noise.
    roots = np.linalg.svd((vectors - vectors.mean(axis=0)) / np.sqrt(len(vectors)), compute_uv=False)
    values = np.zeros(vectors.shape[1])
    values[: len(roots)] = roots**2
    return Spectrum(len(vectors), tuple(values.tolist()))
