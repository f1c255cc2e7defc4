"""Distances between points: landmarks, and two transforms of one pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from comir_batch.core.transform import Composite


_LEAST_LOCATED, _LEAST_SHARE_LOCATED = 3, 0.1  # tiles; wrong alignments have up to two clear places in a hundred


@dataclass(frozen=True, slots=True)
class PointsError:
    """Target registration error in µm: its median, its 95th percentile and the number of landmarks."""

    median_um: float
    p95_um: float
    count: int

    @classmethod
    def of(cls, distances: NDArray[np.float64]) -> PointsError:
        """Return what ``(N,)`` distances in µm come to."""
        return cls(float(np.median(distances)), float(np.percentile(distances, 95)), len(distances))


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """What became of the blocks that a transform was refined by.

    Attributes
    ----------
    tried, used, outliers : int
        Blocks that were looked for; that the displacement was fitted to; that were found where their neighbours do not
        lie, and left out.
    median_um : float
        By how much the used ones were moved.
    refined : bool
        Whether there were enough to refine by.
    """

    tried: int
    used: int
    outliers: int
    median_um: float
    refined: bool

    @property
    def failed(self) -> int:
        """Blocks that were not found, or not clearly."""
        return self.tried - self.used - self.outliers


@dataclass(frozen=True, slots=True)
class TileError:
    """How far held-out tiles lie from where they fit the other image best: an estimate of the registration error.

    Errors beyond what tiles were looked for in cannot be seen.

    Attributes
    ----------
    tried, located : int
        Tiles that were looked for, and those of them whose best place is clear; the others say nothing.
    median_um, p95_um : float
        Of the located tiles' distances in µm.
    median_px : float
        The same in pixels of the images that were compared.
    """

    tried: int
    located: int
    median_um: float
    p95_um: float
    median_px: float

    @classmethod
    def of(cls, offsets: NDArray[np.float64], mpp: tuple[float, float], tried: int) -> TileError | None:
        """Return what offsets come to; None if no more tiles are located than might be by chance.

        Parameters
        ----------
        offsets : (..., 2) float64
            ``(x, y)`` in pixels, NaN for tiles whose place is not clear.
        mpp : (float, float)
            Pixel size along x and y in µm.
        tried : int
            Tiles that were looked for.
        """
        known = offsets[np.isfinite(offsets[..., 0])]
        if len(known) < max(_LEAST_LOCATED, _LEAST_SHARE_LOCATED * tried):
            return None
        pixels, um = (np.linalg.norm(each, axis=1) for each in (known, known * mpp))
        median, p95 = (float(value) for value in np.percentile(um, (50, 95)))
        return cls(tried, len(known), median, p95, float(np.median(pixels)))


@dataclass(frozen=True, slots=True)
class Landmarks:
    """What landmarks say of a transform.

    Attributes
    ----------
    before, after : PointsError
        At the start and at the found transform.
    rtre_median : float
        Median error as a share of the moving slide's diagonal, on which the errors lie (ANHIR, Borovec et al., IEEE TMI
        2020).
    improved : float
        Share of the landmarks that lie nearer than at the start.
    fitted : bool
        Whether the fit heeded them, so that they say less of what lies between them.
    """

    before: PointsError
    after: PointsError
    rtre_median: float
    improved: float
    fitted: bool = False


def judge_landmarks(
    start: Composite, found: Composite, fixed: ArrayLike, moving: ArrayLike, diagonal_um: float, *, fitted: bool = False
) -> Landmarks:
    """Return how far the transformed fixed landmarks lie from the moving ones.

    Parameters
    ----------
    start, found : Composite
        Fixed to moving, in µm.
    fixed, moving : (N, 2) array
        Corresponding landmarks in µm, in each slide's own coordinates.
    diagonal_um : float
        Of the moving slide.
    fitted : bool
        Whether the fit heeded them.

    Raises
    ------
    ValueError
        If there is no landmark, or the numbers of both differ.
    """
    points, goal = np.asarray(fixed, dtype=np.float64), np.asarray(moving, dtype=np.float64)
    if points.shape != goal.shape or points.size == 0:
        raise ValueError(f"landmarks must be pairs: {len(points)} fixed and {len(goal)} moving")
    before, after = (_lengths(transform.map(points) - goal) for transform in (start, found))
    return Landmarks(
        PointsError.of(before),
        PointsError.of(after),
        rtre_median=float(np.median(after)) / diagonal_um,
        improved=float((after < before).mean()),
        fitted=fitted,
    )


@dataclass(frozen=True, slots=True)
class InverseError:
    """How far points come to lie from where they were, brought to the moving image and back (inverse consistency).

    Two fits of one pair, one each way, agree where the images hold both; where hardly anything does, each goes its way
    (Christensen and Johnson, IEEE TMI 2001).

    Attributes
    ----------
    median_um, p95_um : float
        Of the distances.
    median_px : float
        The median in pixels of the registered images.
    """

    median_um: float
    p95_um: float
    median_px: float

    @classmethod
    def of(cls, forward: Composite, backward: Composite, points: NDArray[np.float64], mpp: float) -> InverseError:
        """Measure at ``(N, 2)`` fixed points in µm; `mpp` is the pixel size of the registered images."""
        distances = _lengths(backward.map(forward.map(points)) - points)
        median, p95 = np.percentile(distances, [50, 95])
        return cls(float(median), float(p95), float(median) / mpp)


def disagreement(first: Composite, second: Composite, points: NDArray[np.float64]) -> float:
    """Return the median distance in µm between where two transforms send ``(N, 2)`` fixed points in µm."""
    return float(np.median(_lengths(first.map(points) - second.map(points))))


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.hypot(vectors[:, 0], vectors[:, 1]))
