"""The inverse of a transform as one that images can be warped with: measured, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.approximation import inverse_transform
from comir_batch.core.errors import UserError
from comir_batch.core.transform import BSpline

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite

_MOST_KNOTS = 2**20
_SAMPLES = 20_000


def inverted(transform: Composite, image: Grid, target: Grid, tolerance_um: float) -> Composite:
    """Return a transform that takes points of the moving slide to the fixed slide.

    Its knots are made denser until it is good enough.

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
    finer, before, left = 2, np.inf, "It is too fine for its size"
    while _own_knots(transform) * finer**2 <= _MOST_KNOTS:
        found, _ = _inverse(transform, finer)
        error, (x, y) = _largest_error(transform, found, image, target)
        if error <= tolerance_um:
            return found
        left = f"It may fold at x {x:.0f}, y {y:.0f} µm of the moving slide"
        if error > before / 2:  # of a smooth inverse an eighth is left
            break
        finer, before = finer * 2, error
    raise UserError(f"the transform has no inverse that is good enough for images. {left}; give a smoother one")


def _own_knots(transform: Composite) -> int:
    return sum(part.coefficients[0].size for part in transform.parts if isinstance(part, BSpline))


def _inverse(transform: Composite, finer: int) -> tuple[Composite, int]:
    try:
        return inverse_transform(transform, finer)
    except np.linalg.LinAlgError as error:
        raise UserError("the transform flattens the slide to a line. Give another one") from error


def _largest_error(
    transform: Composite, inverse: Composite, image: Grid, target: Grid
) -> tuple[float, tuple[float, float]]:
    """Return the largest error and its place, of the points that come to lie in the image."""
    random = np.random.default_rng(0).random((_SAMPLES, 2))
    sample = target.to_um(random * np.array([target.width - 1, target.height - 1]))
    back = inverse.map(sample)
    errors = np.hypot(*(transform.map(back) - sample).T) * _inside(back, image)
    worst = int(errors.argmax())
    return float(errors[worst]), (float(sample[worst, 0]), float(sample[worst, 1]))


def _inside(points: NDArray[np.float64], grid: Grid) -> NDArray[np.bool_]:
    """Tell which points lie between the centres of a grid's border pixels."""
    pixels = grid.to_pixels(points)
    return np.asarray(((pixels >= 0) & (pixels <= np.array([grid.width, grid.height]) - 1)).all(axis=1))
