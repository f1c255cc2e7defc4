"""How far scores lie above those that chance gives, overlap by overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

_BINS = 12
_ENOUGH = 200  # scores in a bin, for its spread to mean anything


class Chance(NamedTuple):
    """Mean and spread of the scores of shifts that mean nothing.

    How much they vary follows from how much of the images is alike everywhere, such as slow changes of their light,
    and from how much of them overlaps; formulas that count independent samples know little of either.

    Attributes
    ----------
    overlap, mean, spread : (N,) float64
        Of some overlaps in pixels, ascending.
    most : float
        Overlap that can be reached.
    """

    overlap: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    most: float

    @classmethod
    def of(cls, surfaces: Iterable[tuple[Plane, Plane]], least: float, most: float) -> Chance:
        """Learn from surfaces of many shifts.

        Parameters
        ----------
        surfaces : iterable of ((Y, X) float32, (Y, X) float32)
            Scores, -inf where too little overlaps, and overlaps in pixels.
        least, most : float
            Of the overlaps.
        """
        edges = np.linspace(least, max(most, least + 1), _BINS + 1)
        number, total, squares = np.zeros((3, _BINS))
        for scores, overlap in surfaces:
            inside = np.isfinite(scores)
            values = scores[inside].astype(np.float64)
            bins = np.clip(np.searchsorted(edges, overlap[inside], side="right") - 1, 0, _BINS - 1)
            number += np.bincount(bins, minlength=_BINS)
            total += np.bincount(bins, values, _BINS)
            squares += np.bincount(bins, values**2, _BINS)
        known = number >= max(min(_ENOUGH, number.max()), 1)
        if not known.any():  # nothing overlaps: nothing will be asked, either
            return cls(edges[:1], np.zeros(1), np.ones(1), most)
        mean = total[known] / number[known]
        spread = np.sqrt(np.maximum(squares[known] / number[known] - mean**2, 1e-12))
        return cls(((edges[1:] + edges[:-1]) / 2)[known], mean, spread, most)

    def standard(self, scores: Plane, overlap: Plane) -> Plane:
        """Return standard scores, -inf where scores are.

        They are taken times the root of the share of the overlap that can be reached. A right place tells the more the
        more of the images it lays on each other, and by chance little is alike more often than much is.
        """
        inside = np.isfinite(scores)
        shared = overlap[inside]
        mean, spread = (np.interp(shared, self.overlap, of) for of in (self.mean, self.spread))
        standard = np.full(scores.shape, -np.inf, dtype=np.float32)
        standard[inside] = (scores[inside] - mean) / spread * np.sqrt(np.minimum(shared / self.most, 1))
        return standard
