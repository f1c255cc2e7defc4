"""Metric multidimensional scaling: points in the plane whose distances are as near as can be to given ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_MOST_ITERATIONS = 500
_LEAST_GAIN = 1e-6  # of the stress, in an iteration


class Embedding(NamedTuple):
    """Points and how well they show the distances.

    Attributes
    ----------
    points : (N, k) float64
        Centred, with the widest spread along the first axis.
    stress : float
        ``sqrt(sum (d - given)**2 / sum given**2)`` over pairs; 0 is perfect.
    """

    points: NDArray[np.float64]
    stress: float


def smacof(distances: ArrayLike, dimensions: int = 2) -> Embedding:
    """Return the points that SMACOF finds from the start of classical scaling (Borg and Groenen, 2005, ch. 8 and 12).

    Each iteration is a Guttman transform, ``X <- B(X) X / N``, which never raises the stress; the same input gives the
    same points.

    Parameters
    ----------
    distances : (N, N)
        Symmetric, not negative, zero on the diagonal.
    dimensions : int
        k, fewer than N.
    """
    given = np.asarray(distances, dtype=np.float64)
    points = _classical(given, dimensions)
    stress = _stress(given, points)
    for _ in range(_MOST_ITERATIONS):
        points = _guttman(given, points)
        before, stress = stress, _stress(given, points)
        if before - stress <= _LEAST_GAIN * before:
            break
    return Embedding(_aligned(points), stress)


def _classical(given: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    """Return the principal coordinates of the doubly centred squares of the distances (Torgerson's scaling)."""
    centre = np.eye(len(given)) - 1 / len(given)
    values, vectors = np.linalg.eigh(-centre @ given**2 @ centre / 2)
    return np.asarray(vectors[:, : -dimensions - 1 : -1] * np.sqrt(values[: -dimensions - 1 : -1].clip(0)))


def _guttman(given: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    found = cdist(points, points)
    ratios = np.divide(given, found, out=np.zeros_like(given), where=found > 0)
    return np.asarray((np.diag(ratios.sum(axis=1)) - ratios) @ points / len(points))


def _stress(given: NDArray[np.float64], points: NDArray[np.float64]) -> float:
    total = (given**2).sum()
    return float(np.sqrt(((cdist(points, points) - given) ** 2).sum() / total)) if total else 0.0


def _aligned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn centred points to their principal axes, the farthest one of each to the positive side."""
    centred = points - points.mean(axis=0)
    turned = centred @ np.linalg.svd(centred, full_matrices=False)[2].T
    farthest = turned[np.abs(turned).argmax(axis=0), np.arange(turned.shape[1])]
    return np.asarray(turned * np.where(farthest < 0, -1.0, 1.0))
