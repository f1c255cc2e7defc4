"""Where the likelihood of a rigid transform, or of a similarity, is highest near a start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize

from comir_batch.core.transform import Affine, Composite

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

_STEP_PX = 1.5  # about what a search is off: a pixel, and as much by its angle
_NEAR_PX, _NEAR_NATS = 0.1, 0.1
_MOST = 80  # likelihoods; it takes about twenty
_IMPOSSIBLE = 1e30


class Settled(NamedTuple):
    """A transform and how likely it is."""

    transform: Composite
    nats: float


def settled(start: Composite, grid: Grid, likelihood: Callable[[Composite], float], *, scaled: bool = False) -> Settled:
    """Climb from a start by shifts and turns about a grid's middle, with the simplex of Nelder and Mead (1965).

    Parameters
    ----------
    start : Composite
        Fixed µm to moving µm.
    grid : Grid
        The fixed one, whose pixels are the units of the steps.
    likelihood : callable
        Nats of a transform, -inf for an impossible one.
    scaled : bool
        Whether to climb by changes of scale, too.
    """
    pixel = max(grid.mpp_x, grid.mpp_y)
    middle = grid.corners_um().mean(axis=0)
    reach = math.hypot(*grid.size_um) / 4

    def moved(steps: NDArray[np.float64]) -> Composite:
        turn, x, y, *stretch = steps * pixel
        angle, scale = turn / reach, math.exp(stretch[0] / reach) if scaled else 1.0
        cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
        return Composite((Affine.about([[cosine, -sine], [sine, cosine]], middle, [x, y]), *start.parts))

    def loss(steps: NDArray[np.float64]) -> float:
        return min(-likelihood(moved(steps)), _IMPOSSIBLE)  # the simplex cannot reckon with infinity

    number = 4 if scaled else 3
    simplex = np.vstack([np.zeros(number), _STEP_PX * np.eye(number)])
    options = {"initial_simplex": simplex, "xatol": _NEAR_PX, "fatol": _NEAR_NATS, "maxfev": _MOST}
    best = optimize.minimize(loss, simplex[0], method="Nelder-Mead", options=options)
    return Settled(moved(best.x), -float(best.fun) if best.fun < _IMPOSSIBLE else -math.inf)
