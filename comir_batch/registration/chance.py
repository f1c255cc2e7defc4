"""How far scores lie above those that chance gives, overlap by overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

_BINS = 12
_ENOUGH = 200  # scores in a bin, for its spread to mean anything


class Tally(NamedTuple):
    """Sums over the scores of one angle's shifts, by overlap.

    Attributes
    ----------
    number, total, squares : (12,) float64
        Of the scores in each bin: how many, their sum, and that of their squares.
    """

    number: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Plane, overlap: Plane, edges: NDArray[np.float64]) -> Self:
        """Sum up a surface: scores, -inf where too little overlaps, and overlaps in pixels."""
        inside = np.isfinite(scores)
        values = scores[inside].astype(np.float64)
        bins = np.clip(np.searchsorted(edges, overlap[inside], side="right") - 1, 0, _BINS - 1)
        weights: tuple[NDArray[np.float64] | None, ...] = (None, values, values**2)
        return cls(*(np.bincount(bins, weight, _BINS).astype(np.float64) for weight in weights))


def bin_edges(least: float, most: float) -> NDArray[np.float64]:
    """Return the limits of a tally's bins between two overlaps in pixels."""
    return np.linspace(least, max(most, least + 1), _BINS + 1)


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
    def of(cls, tallies: Sequence[Tally], edges: NDArray[np.float64], most: float, *, added: bool = False) -> Self:
        """Learn from the tallies of some angles.

        Parameters
        ----------
        tallies : sequence of Tally
            At least one.
        edges : (13,) float64
            Theirs.
        most : float
            Overlap that can be reached, in pixels.
        added : bool
            Whether scores by it are added to those of other images. Nearly all overlaps at few angles only, where all
            shifts are alike, so that chance seems to vary little there, and upright places to be far above it. That
            prefers the places where slides usually lie, but would drown what other images tell of all places.
        """
        number, total, squares = np.sum(tallies, axis=0)
        known = number >= max(min(_ENOUGH, number.max()), 1)
        if not known.any():  # nothing overlaps: nothing will be asked, either
            return cls(edges[:1], np.zeros(1), np.ones(1), most)
        mean = total[known] / number[known]
        spread = np.sqrt(np.maximum(squares[known] / number[known] - mean**2, 1e-12))
        overlap = ((edges[1:] + edges[:-1]) / 2)[known]
        return cls(overlap, mean, _no_steeper_than_root(spread, overlap) if added else spread, most)

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


def _no_steeper_than_root(spread: NDArray[np.float64], overlap: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return spreads raised to where they fall with the root of the overlap at most, as of independent samples."""
    root = np.sqrt(overlap)
    return np.maximum.accumulate(spread * root) / root
