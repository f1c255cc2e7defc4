"""The inverse of a transform: from points of the moving slide to points of the fixed slide, both in µm.

Affine parts are inverted exactly, B-splines by Newton's method with step halving (Deuflhard, Newton Methods for
Nonlinear Problems, 2004, chapter 3), point by point. Where a spline folds, several fixed points lie on one moving point
and no answer is right: such points come back as NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from comir_batch.core.errors import UserError
from comir_batch.core.transform import Affine

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from comir_batch.core.transform import BSpline, Composite

_ITERATIONS = 40
_HALVINGS = 8
_SAMPLES = 8  # a control cell and axis, where a fold is possible
_STARTS = 8  # beside a fold
_STEP = 1e-4  # of the control points' distance, for derivatives


def invert(transform: Composite, points: ArrayLike, tolerance_um: float = 1e-3) -> NDArray[np.float64]:
    """Map points of the moving slide to the fixed slide.

    Parameters
    ----------
    transform : Composite
        Fixed µm to moving µm.
    points : (N, 2) array_like
        ``(x, y)`` in µm on the moving slide; NaN rows stay NaN.
    tolerance_um : float
        Largest error of each B-spline's inverse, on its fixed side.

    Returns
    -------
    (N, 2) float64
        ``(x, y)`` in µm on the fixed slide; a row of NaN where there is no such point, or more than one.

    Raises
    ------
    UserError
        If an affine part is singular.
    """
    found = np.array(points, dtype=np.float64).reshape(-1, 2)
    for part in reversed(transform.parts):
        found = _affine(part, found) if isinstance(part, Affine) else _bspline(part, found, tolerance_um)
    return found


def _affine(part: Affine, moved: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return part.inverse().map(moved)
    except np.linalg.LinAlgError as error:
        raise UserError(
            "the transform flattens the slide to a line and has no inverse. Give another transform"
        ) from error


def _bspline(spline: BSpline, moved: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    found = np.full_like(moved, np.nan)
    known = np.isfinite(moved).all(axis=1)
    target = moved[known]
    answer = _newton(spline, target - spline.displacement(_clamped(spline, target)), target, tolerance)
    places = _steep_places(spline)
    if places.size:
        folds = _determinant(spline, places) <= 0
        answer = _again(spline, places[~folds], answer, target, tolerance)
        answer[_ambiguous(spline, places[folds], answer, target, tolerance)] = np.nan
    found[known] = answer
    return found


def _clamped(spline: BSpline, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest points of the support.

    Starting there finds the answer in the support, where it ends with a step and a second answer lies beyond it.
    """
    last = np.array(spline.coefficients.shape[:0:-1]) - 2 - 1e-9
    return np.asarray(np.clip(points, spline.origin + spline.spacing, spline.origin + last * spline.spacing))


def _again(
    spline: BSpline,
    places: NDArray[np.float64],
    answer: NDArray[np.float64],
    target: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.float64]:
    """Search from other starts for what was not found: places beside a fold, which stop the first search."""
    tree = cKDTree(spline.map(places))
    for rank in range(1, _STARTS + 1):
        lost = np.flatnonzero(np.isnan(answer).any(axis=1))
        if not lost.size:
            break
        _, near = tree.query(target[lost], k=[rank])
        answer[lost] = _newton(spline, places[near[:, 0]], target[lost], tolerance)
    return answer


def _ambiguous(
    spline: BSpline,
    folds: NDArray[np.float64],
    answer: NDArray[np.float64],
    target: NDArray[np.float64],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Tell where a second point is mapped to the target.

    A map of degree one has more than one answer exactly where one of them lies in a fold, so a search from the nearest
    fold finds it.
    """
    if not folds.size:
        return np.zeros(len(target), dtype=bool)
    _, nearest = cKDTree(spline.map(folds)).query(target)
    other = _newton(spline, folds[nearest], target, tolerance)
    return np.asarray((_length(other - answer) > 10 * tolerance) | (_determinant(spline, answer) <= 0))


def _newton(
    spline: BSpline, start: NDArray[np.float64], target: NDArray[np.float64], tolerance: float
) -> NDArray[np.float64]:
    """Solve ``spline.map(p) = target``; NaN where it does not converge."""
    found = np.full_like(target, np.nan)
    active, at = np.arange(len(target)), start
    for _ in range(_ITERATIONS):
        residual = spline.map(at) - target[active]
        step = _solve(_jacobian(spline, at), residual)
        close = np.asarray(np.maximum(10 * _length(step), _length(residual)) <= tolerance)
        found[active[close]] = (at - step)[close]
        on = ~close & np.isfinite(step).all(axis=1)
        if not on.any():
            break
        active = active[on]
        at = _damped(spline, at[on], step[on], target[active], residual[on])
    return found


def _damped(
    spline: BSpline,
    at: NDArray[np.float64],
    step: NDArray[np.float64],
    target: NDArray[np.float64],
    residual: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Take each step, halved until it comes closer to its target."""
    before = _length(residual)
    share = np.ones((len(at), 1))
    far = np.arange(len(at))
    for _ in range(_HALVINGS):
        moved = spline.map(at[far] - share[far] * step[far])
        far = far[_length(moved - target[far]) >= before[far]]
        if not far.size:
            break
        share[far] /= 2
    return np.asarray(at - share * step)


def _jacobian(spline: BSpline, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(N, 2, 2)`` derivatives: ``[:, i, j]`` is that of coordinate i along axis j."""
    here, shifts = spline.map(at), np.diag(_STEP * spline.spacing)
    return np.stack([(spline.map(at + shift) - here) / shift.sum() for shift in shifts], axis=2)


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(vectors, axis=1), dtype=np.float64)


def _solve(matrices: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve ``(N, 2, 2) s = (N, 2)`` by Cramer's rule; not finite where a matrix is singular."""
    (a, b), (c, d) = np.moveaxis(matrices, 0, -1)
    x, y = values.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.stack([d * x - b * y, a * y - c * x], axis=1) / (a * d - b * c)[:, None])


def _determinant(spline: BSpline, at: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # of what was not found
        return np.asarray(np.linalg.det(_jacobian(spline, at)), dtype=np.float64)


def _steep_places(spline: BSpline) -> NDArray[np.float64]:
    """Return ``(N, 2)`` points in µm on a fine lattice in the cells in which a fold cannot be ruled out."""
    cells = np.argwhere(_bound(spline) >= 1)[:, ::-1]
    inside = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    lattice = np.stack(np.meshgrid(inside, inside), axis=-1).reshape(-1, 2)
    places = (cells[:, None, :] + lattice).reshape(-1, 2) * spline.spacing + spline.origin
    return np.asarray(places, dtype=np.float64)


def _bound(spline: BSpline) -> NDArray[np.float64]:
    """Return ``(ny - 1, nx - 1)`` bounds of the displacement's derivative in each cell; 0 outside the support.

    A spline's derivative is a mean of its coefficients' differences; below 1 (row sums) there is no fold.
    """
    steps = [np.abs(np.diff(spline.coefficients, axis=axis)) / spline.spacing[2 - axis] for axis in (2, 1)]
    along_x, along_y = (ndimage.maximum_filter(step, size=(1, 5, 5)) for step in steps)
    bound = (along_x[:, :-1] + along_y[:, :, :-1]).max(axis=0)
    bound[[0, -1]] = bound[:, [0, -1]] = 0.0
    return np.asarray(bound)
