"""Points and lines of one slide on the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.inverse import invert

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.transform import Composite


@dataclass(frozen=True, slots=True)
class Way:
    """The way from one slide to the other.

    Attributes
    ----------
    transform : Composite
        Fixed to moving, in µm.
    inverse : bool
        Whether points go from the moving slide to the fixed one.
    """

    transform: Composite
    inverse: bool = False

    def map(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points ``(x, y)`` in µm; NaN stays, and comes where the transform has no inverse."""
        return invert(self.transform, points) if self.inverse else self.transform.map(points)


def subdivided(line: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Return a line with points added on its edges, evenly, so that none is longer.

    Parameters
    ----------
    line : (N, 2) float64
        Its points, in order; all of them are kept.
    longest : float
        Length of an edge, in the unit of the points.

    Returns
    -------
    (M, 2) float64
        M is at least N.
    """
    lengths = np.hypot(*np.diff(line, axis=0).T)
    pieces = np.maximum(np.ceil(lengths / longest), 1).astype(np.int64)
    at = np.append(np.repeat(np.arange(len(pieces)), pieces), len(line) - 1)
    share = np.concatenate([*(np.arange(count) / count for count in pieces), [0.0]])[:, None]
    following = np.minimum(at + 1, len(line) - 1)
    return np.asarray(line[at] + share * (line[following] - line[at]), dtype=np.float64)
