"""A field of the registration benchmark: two crops as every method sees them, and the truth, if there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.transform import Affine, Composite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.training.crops import PairReader


class Readers(NamedTuple):
    """Two readers of one part of a pair: one gives the model's inputs, the other one grey channel; the pair's name."""

    model: PairReader
    raw: PairReader
    pair: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A field as every method sees it, and the truth.

    Attributes
    ----------
    inputs : ((C, S, S), (C, S, S)) float32
        Fixed and moving crop, normalised as the model's card says.
    grey : ((S, S), (S, S)) float32
        Mean over channels, 0 to 1 between percentiles of the tissue, as a run compares raw images.
    masks : ((S, S), (S, S)) bool
        Pixels inside the part of the slides that may be read, and inside masks that were given.
    grid : Grid
        Of both crops; begins at (0, 0).
    truth : Composite or None
        Fixed µm to moving µm; None where the crops show different things.
    points : (N, 2) float64
        Where errors are measured, in µm: the corners, or landmarks that lie on both crops where the field is bent.
    """

    inputs: tuple[NDArray[np.float32], NDArray[np.float32]]
    grey: tuple[NDArray[np.float32], NDArray[np.float32]]
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    grid: Grid
    truth: Composite | None
    points: NDArray[np.float64]

    def error_px(self, found: Composite) -> float | None:
        """Return the mean distance in pixels between where the points are mapped and where they belong, if anywhere."""
        if self.truth is None:
            return None
        apart = found.map(self.points) - self.truth.map(self.points)
        return float(np.linalg.norm(apart, axis=1).mean() / self.grid.mpp_x)

    @property
    def unbent_px(self) -> float:
        """Mean error that the truth without its deformation has; 0 where there is none."""
        parts = self.truth.parts if self.truth else ()
        return self.error_px(Composite(tuple(part for part in parts if isinstance(part, Affine)))) or 0.0

    def in_um(self, matrix: NDArray[np.float64]) -> Composite:
        """Return a ``(2, 3)`` map of pixels as a transform."""
        return Composite((Affine(matrix[:, :2], matrix[:, 2] * self.grid.mpp_x),))
