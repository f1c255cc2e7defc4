"""The inverse of a deformation as a transform that can be warped with.

Mapping each pixel back by Newton's method costs far more than warping. The inverse is as smooth as the transform, so it
is found on a lattice of the moving slide and a cubic B-spline is laid through it; how well it undoes the transform is
measured, and where that is not well enough the lattice is made finer.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.inverse import invert
from comir_batch.core.transform import Affine, BSpline, Composite

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PADDING = 4  # nodes beyond the slide; the spline needs two, its filter forgets the border by 0.27 a node
_BEYOND = 8  # control points
_MOST_NODES = 2**20
_AT_ONCE = 2**16
_SAMPLES = 20_000


def inverted(transform: Composite, image: Grid, target: Grid, tolerance_um: float) -> Composite:
    """Return a transform that takes points of the moving slide to the fixed slide.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    image : Grid
        Pixels on the fixed slide that are to be warped; beyond them the inverse need not be right.
    target : Grid
        Pixels on the moving slide that they are warped to.
    tolerance_um : float
        Largest distance on the moving slide between a point and where the transform takes what comes back, over a
        seeded sample of the points of `target` that come to lie in `image`.

    Raises
    ------
    UserError
        If the transform folds, or is too fine, so that there is no such inverse.
    """
    linear = _linear(transform)
    splines = [part for part in transform.parts if isinstance(part, BSpline)]
    if not splines:
        return Composite((_inverse(linear),))
    control = min(float(spline.spacing.min()) for spline in splines)
    wider = Composite(tuple(_wider(part) if isinstance(part, BSpline) else part for part in transform.parts))
    spacing, before, left = control / 2, np.inf, "It is too fine for its size"
    while np.prod(_shape(target, spacing)) <= _MOST_NODES:
        spline, doubtful = _fitted(wider, linear, (_grown(image, _BEYOND / 2 * control), target), spacing)
        found = Composite((spline, _inverse(linear)))
        error, (x, y) = _largest_error(transform, found, image, np.concatenate([_sample(target), doubtful]))
        if error <= tolerance_um:
            return found
        left = f"It may fold at x {x:.0f}, y {y:.0f} µm of the moving slide"
        if error > before / 2:  # of a smooth inverse an eighth is left
            break
        spacing, before = spacing / 2, error
    raise UserError(f"the transform has no inverse that is good enough for images. {left}; give a smoother one")


def _linear(transform: Composite) -> Affine:
    """Return the affine parts alone, as one."""
    affines = (part for part in transform.parts if isinstance(part, Affine))
    return reduce(lambda first, second: second.after(first), affines, Affine.identity())


def _wider(spline: BSpline) -> BSpline:
    """Return the spline without the jump to no displacement at its border, which often is that of the slide."""
    coefficients = np.pad(spline.coefficients, ((0, 0), (_BEYOND, _BEYOND), (_BEYOND, _BEYOND)), mode="edge")
    return BSpline(spline.origin - _BEYOND * spline.spacing, spline.spacing, coefficients)


def _inverse(linear: Affine) -> Affine:
    try:
        return linear.inverse()
    except np.linalg.LinAlgError as error:
        raise UserError("the transform flattens the slide to a line. Give another transform") from error


def _fitted(
    transform: Composite, linear: Affine, grids: tuple[Grid, Grid], spacing: float
) -> tuple[BSpline, NDArray[np.float64]]:
    """Return the displacement that, before the linear inverse, makes the inverse, and the nodes without an inverse.

    Where nothing of the image lies, or the inverse is not known, the displacement is that of the nearest place.
    """
    image, target = grids
    columns, rows = _shape(target, spacing)
    origin = np.array([target.origin_x, target.origin_y]) - _PADDING * spacing
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    nodes = origin + spacing * np.stack([x.ravel(), y.ravel()], axis=1)
    parts = np.array_split(nodes, -(-len(nodes) // _AT_ONCE))
    back = np.concatenate([invert(transform, part) for part in parts])
    guessed = ~_inside(back, image).reshape(rows, columns)
    moved = (linear.map(back) - nodes).T.reshape(2, rows, columns)
    if guessed.all():
        moved, guessed = np.zeros_like(moved), np.zeros_like(guessed)
    nearest = ndimage.distance_transform_edt(guessed, return_distances=False, return_indices=True)
    coefficients = [ndimage.spline_filter(axis[tuple(nearest)], order=3, mode="mirror") for axis in moved]
    spline = BSpline(origin, np.full(2, spacing), np.stack(coefficients))
    return spline, nodes[np.isnan(back).any(axis=1) & _inside(nodes, target)]


def _shape(target: Grid, spacing: float) -> tuple[int, int]:
    """Return the nodes along x and y."""
    width, height = (int(np.ceil(size / spacing)) + 1 + 2 * _PADDING for size in target.size_um)
    return width, height


def _grown(grid: Grid, margin_um: float) -> Grid:
    """Return a grid with more pixels on each side."""
    x, y = int(margin_um / grid.mpp_x) + 1, int(margin_um / grid.mpp_y) + 1
    left, top = grid.origin_x - x * grid.mpp_x, grid.origin_y - y * grid.mpp_y
    return Grid(grid.width + 2 * x, grid.height + 2 * y, grid.mpp_x, grid.mpp_y, left, top)


def _inside(points: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """Tell which points lie between the centres of a grid's border pixels; not those that are NaN."""
    pixels = grid.to_pixels(points)
    return np.asarray(((pixels >= 0) & (pixels <= np.array([grid.width, grid.height]) - 1)).all(axis=1))


def _sample(grid: Grid) -> NDArray[np.float64]:
    random = np.random.default_rng(0).random((_SAMPLES, 2))
    return grid.to_um(random * np.array([grid.width - 1, grid.height - 1]))


def _largest_error(
    transform: Composite, inverse: Composite, image: Grid, sample: NDArray[np.float64]
) -> tuple[float, tuple[float, float]]:
    """Return the largest error and its place, of the points that come to lie in the image."""
    back = inverse.map(sample)
    errors = np.hypot(*(transform.map(back) - sample).T) * _inside(back, image)
    worst = int(errors.argmax())
    return float(errors[worst]), (float(sample[worst, 0]), float(sample[worst, 1]))
