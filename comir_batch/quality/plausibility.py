"""Whether a transform can be true, from the transform and the tissue masks alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite

_MAX_POINTS = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the linear part of a transform does to the tissue.

    Attributes
    ----------
    scale_min, scale_max : float
        Singular values: the smallest and largest stretch in any direction.
    shear : float
        Tangent of the angle by which a right angle is skewed.
    mirrored : bool
        Whether left and right are exchanged.
    rotation_deg : float
        Turn from fixed to moving, in (-180, 180]; of a mirrored one, the turn after mirroring x.
    """

    scale_min: float
    scale_max: float
    shear: float
    mirrored: bool
    rotation_deg: float


@dataclass(frozen=True, slots=True)
class Folding:
    """Local change of area over the tissue, relative to the sign of the whole: a mirrored transform does not fold.

    Attributes
    ----------
    share : float
        Share of the points where the Jacobian's determinant is not positive.
    jacobian_min, jacobian_max : float
        Range of the determinant.
    jacobian_p1, jacobian_p99 : float
        Its percentiles 1 and 99: what holds for all of the tissue but its outermost bends.
    """

    share: float
    jacobian_min: float
    jacobian_max: float
    jacobian_p1: float
    jacobian_p99: float


def tissue_points(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Return ``(N, 2)`` tissue pixel centres in µm, thinned evenly to at most twenty thousand.

    Parameters
    ----------
    mask : (Y, X) bool
        True on tissue.
    grid : Grid
        Its pixels.
    """
    rows, columns = np.nonzero(mask)
    kept = np.linspace(0, max(len(rows) - 1, 0), min(len(rows), _MAX_POINTS)).round().astype(np.int64)
    return grid.to_um(np.stack([columns[kept], rows[kept]], axis=1))


def shape(transform: Composite, points: NDArray[np.float64]) -> Shape:
    """Return the shape of the affine map that fits a transform best on the tissue.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    points : (N, 2) float64
        Fixed tissue in µm, at least three points that are not on one line.
    """
    matrix = _linear_part(transform, points)
    scales = np.linalg.svd(matrix, compute_uv=False)
    mirrored = bool(np.linalg.det(matrix) < 0)
    unmirrored = matrix @ np.diag([-1.0, 1.0]) if mirrored else matrix
    first, second = unmirrored.T
    rotation = np.degrees(np.arctan2(unmirrored[1, 0] - unmirrored[0, 1], unmirrored[0, 0] + unmirrored[1, 1]))
    area = abs(np.linalg.det(unmirrored))
    return Shape(
        scale_min=float(scales[-1]),
        scale_max=float(scales[0]),
        shear=float(first @ second / area) if area else float("inf"),
        mirrored=mirrored,
        rotation_deg=float(rotation),
    )


def folding(transform: Composite, points: NDArray[np.float64], step_um: float) -> Folding:
    """Return where a transform folds, by central differences at tissue points.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    points : (N, 2) float64
        Fixed tissue in µm; without any, nothing folds.
    step_um : float
        Of the differences: about a pixel of the image that was registered.
    """
    if not len(points):
        return Folding(0.0, 1.0, 1.0, 1.0, 1.0)
    determinants = transform.jacobian_determinant(points, step_um)
    upright = determinants * (np.sign(np.median(determinants)) or 1.0)
    p1, p99 = np.percentile(upright, [1, 99])
    return Folding(float((upright <= 0).mean()), float(upright.min()), float(upright.max()), float(p1), float(p99))


def overlap(
    transform: Composite,
    fixed: tuple[NDArray[np.bool_], Grid],
    moving: tuple[NDArray[np.bool_], Grid],
) -> float:
    """Return which share of the smaller tissue lies on the other slide's tissue, 0 to 1.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    fixed, moving : tuple of (Y, X) bool and Grid
        Tissue masks and their pixels; neither need show the whole tissue.
    """
    points = tissue_points(*fixed)
    if not len(points) or not moving[0].any():
        return 0.0
    common = _on_tissue(transform.map(points), *moving).mean() * _area(*fixed)
    size = np.median(np.abs(transform.jacobian_determinant(points, fixed[1].mpp_x)))
    smaller = min(_area(*fixed), _area(*moving) / max(float(size), 1e-12))
    return float(min(common / smaller, 1.0))


def _linear_part(transform: Composite, points: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = points - points.mean(axis=0)
    mapped = transform.map(points)
    solution = np.linalg.lstsq(centred, mapped - mapped.mean(axis=0), rcond=None)[0]
    return np.asarray(solution.T, dtype=np.float64)


def _on_tissue(points: NDArray[np.float64], mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
    columns, rows = np.floor(grid.to_pixels(points) + 0.5).astype(np.int64).T
    inside = (columns >= 0) & (columns < grid.width) & (rows >= 0) & (rows < grid.height)
    hit = np.zeros(len(points), dtype=bool)
    hit[inside] = mask[rows[inside], columns[inside]]
    return hit


def _area(mask: NDArray[np.bool_], grid: Grid) -> float:
    return float(mask.sum()) * grid.mpp_x * grid.mpp_y
