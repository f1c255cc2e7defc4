"""Distances between points: landmarks, and two transforms of one pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from comir_batch.core.transform import Composite


@dataclass(frozen=True, slots=True)
class PointsError:
    """Target registration error in µm: its median, its 95th percentile and the number of landmarks."""

    median_um: float
    p95_um: float
    count: int


def points_error(transform: Composite, fixed: ArrayLike, moving: ArrayLike) -> PointsError:
    """Return how far the transformed fixed landmarks lie from the moving ones.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    fixed, moving : (N, 2) array
        Corresponding landmarks in µm, in each slide's own coordinates.

    Raises
    ------
    ValueError
        If there is no landmark, or the numbers of both differ.
    """
    start, goal = np.asarray(fixed, dtype=np.float64), np.asarray(moving, dtype=np.float64)
    if start.shape != goal.shape or start.size == 0:
        raise ValueError(f"landmarks must be pairs: {len(start)} fixed and {len(goal)} moving")
    distances = _lengths(transform.map(start) - goal)
    return PointsError(float(np.median(distances)), float(np.percentile(distances, 95)), len(distances))


def disagreement(first: Composite, second: Composite, points: NDArray[np.float64]) -> float:
    """Return the median distance in µm between where two transforms send ``(N, 2)`` fixed points in µm."""
    return float(np.median(_lengths(first.map(points) - second.map(points))))


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.hypot(vectors[:, 0], vectors[:, 1]))
