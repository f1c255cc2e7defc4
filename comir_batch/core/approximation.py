"""What stands for a transform where a file format cannot hold it: an affine, thin plates, a field, a spline's inverse.

Each maps ``(N, 2)`` points ``(x, y)`` in µm as what is written will, so that its error can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.interpolate import NearestNDInterpolator, RBFInterpolator

from comir_batch.core.inverse import invert
from comir_batch.core.transform import Affine, BSpline, Composite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from comir_batch.core.geometry import Grid

_MARGIN = 6  # cells by which a spline is continued beyond its support before it is inverted


def exact_affine(transform: Composite) -> Affine | None:
    """Return the affine that a transform is, or None if it bends."""
    whole = Affine.identity()
    for part in transform.parts:
        if not isinstance(part, Affine):
            return None
        whole = part.after(whole)
    return whole


def best_affine(source: NDArray[np.float64], target: NDArray[np.float64]) -> Affine:
    """Return the affine with the least squared distance between ``(N, 2)`` mapped and target points in µm."""
    centre = source.mean(axis=0)
    design = np.column_stack([source - centre, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    matrix = np.asarray(solution[:2].T, dtype=np.float64)
    return Affine(matrix, np.asarray(solution[2] - matrix @ centre, dtype=np.float64))


def lattice(grid: Grid, count: int) -> NDArray[np.float64]:
    """Return about ``count`` points, ``(N, 2)`` in µm, on a lattice of squares from border to border of a grid."""
    width, height = grid.size_um
    columns = max(2, round((count * width / height) ** 0.5))
    x = np.linspace(-0.5, grid.width - 0.5, columns)
    y = np.linspace(-0.5, grid.height - 0.5, max(2, round(count / columns)))
    return grid.to_um(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))


@dataclass(frozen=True, slots=True, eq=False)
class ThinPlates:
    """Thin-plate splines through landmarks, one a coordinate, as in Bookstein, IEEE PAMI 11, 1989.

    Attributes
    ----------
    source, target : (N, 2) float64
        Landmarks ``(x, y)`` in µm.
    """

    source: NDArray[np.float64]
    target: NDArray[np.float64]

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points in µm."""
        plates = RBFInterpolator(self.source, self.target, kernel="thin_plate_spline", degree=1)
        return np.asarray(plates(np.asarray(points, dtype=np.float64)), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class DisplacementField:
    """Displacements ``T(p) - p`` on a grid, linear in between, and none beyond it, as ITK has them.

    Attributes
    ----------
    grid : Grid
        Where the samples lie.
    vectors : (2, Y, X) float64
        Displacement along x, then along y, in µm.
    """

    grid: Grid
    vectors: NDArray[np.float64]

    @classmethod
    def of(cls, transform: Composite, grid: Grid) -> DisplacementField:
        """Sample a transform at the pixel centres of a grid."""
        y, x = np.mgrid[: grid.height, : grid.width]
        points = grid.to_um(np.column_stack([x.ravel(), y.ravel()]))
        vectors = (transform.map(points) - points).T.reshape(2, *grid.shape)
        return cls(grid, np.ascontiguousarray(vectors))

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points in µm; beyond the outer samples' pixels they stay where they are."""
        at = np.asarray(points, dtype=np.float64)
        pixels = self.grid.to_pixels(at)
        moved = np.stack([ndimage.map_coordinates(v, pixels[:, ::-1].T, order=1, mode="nearest") for v in self.vectors])
        inside = ((pixels >= -0.5) & (pixels <= np.array([self.grid.width, self.grid.height]) - 0.5)).all(axis=1)
        return np.asarray(at + np.where(inside, moved, 0.0).T, dtype=np.float64)


def inverse_transform(transform: Composite, finer: int = 4) -> tuple[Composite, int]:
    """Return a transform that undoes another one, and at how many knots there was nothing to undo.

    Affine parts are inverted exactly. In place of a B-spline stands one with denser knots through its inverse; at knots
    where it folds, what lies nearest counts.

    Parameters
    ----------
    transform : Composite
        The other one.
    finer : int
        Knots of an inverse spline for each of the spline's own, along an axis.

    Returns
    -------
    inverse : Composite
        Its parts in reverse order.
    lost : int
        Knots without an inverse.
    """
    parts: list[Affine | BSpline] = []
    lost = 0
    for part in reversed(transform.parts):
        if isinstance(part, Affine):
            parts.append(part.inverse())
        else:
            undone, count = _inverse_spline(part, finer)
            parts.append(undone)
            lost += count
    return Composite(tuple(parts)), lost


def _inverse_spline(spline: BSpline, finer: int) -> tuple[BSpline, int]:
    """Interpolate the inverse displacement by a cubic B-spline (Unser, IEEE Signal Processing Magazine 16, 1999)."""
    wide = _continued(spline)
    spacing = spline.spacing / finer
    columns, rows = (np.array(wide.coefficients.shape[:0:-1]) - 5) * finer
    y, x = np.mgrid[:rows, :columns]
    origin = wide.origin + 2 * wide.spacing
    knots = origin + np.column_stack([x.ravel(), y.ravel()]) * spacing
    displacement = invert(Composite((wide,)), knots) - knots
    good = np.isfinite(displacement).all(axis=1)
    if not good.all():
        displacement[~good] = NearestNDInterpolator(knots[good], displacement[good])(knots[~good])
    values = displacement.T.reshape(2, rows, columns)
    fitted = np.stack([ndimage.spline_filter(value, order=3, mode="mirror") for value in values])
    return BSpline(origin, spacing, fitted), int((~good).sum())


def _continued(spline: BSpline) -> BSpline:
    """Continue a spline beyond its support, where it would end with a step."""
    padding = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))
    return BSpline(
        spline.origin - _MARGIN * spline.spacing, spline.spacing, np.pad(spline.coefficients, padding, mode="edge")
    )
