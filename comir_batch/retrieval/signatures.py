"""Signatures of discs of cells: few numbers, known at every pose of a query that was described once.

A disc of banded cells is described by its coefficients in the functions ``J_m(l r / R) exp(i m phi)`` that vanish on
its border, those of lowest frequency l (Wang, Ronneberger and Burkhardt, IEEE PAMI 31(9), 2009). An image turned by an
angle a has the coefficients times ``exp(-i m a)``, one whose x is mirrored ``(-1)^m`` times their conjugates. So all
poses of a query follow from one, and one matrix product compares them with all discs of a gallery.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import jn_zeros, jv

from comir_batch.retrieval.cells import CELL
from comir_batch.retrieval.templates import turned_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.retrieval.cells import Cells
    from comir_batch.retrieval.templates import Query

    Plane = NDArray[np.float32]

CELL_PX = 8
"""Pixels of the working level along each side of the cells that discs are made of."""
STRIDE_PX = 16
"""Pixels between the middles of neighbouring discs, which lie on cells."""
RADIUS = 15
"""Cells from a disc's middle to where its functions vanish."""
_HIGHEST = 24.0  # zeros of Bessel functions up to this: waves down to four cells
_SIDE = 2 * RADIUS + 1
_STEP = STRIDE_PX // CELL_PX
_FLAT = 0.1  # of what a disc of the slide has on average: added, so that noise where little varies is no match
_SCALE = 256.0  # numbers of unit vectors as bytes; none is as large as a half but where a disc is one of the functions
_AT_ONCE = 4096  # discs that are described at once
_TURN_DEG = 10.0  # half a turn is a whole number of these


class _Functions(NamedTuple):
    """The functions, as many as a signature has numbers; those of even order first.

    Attributes
    ----------
    values : (cells, L) float32
        Of unit length.
    order : (L,) int
        Waves about the disc.
    sine : (L,) bool
        Whether it is a function's imaginary part.
    partner : (L,) int
        Number of the other part; of order 0, which has none, itself.
    """

    values: Plane
    order: NDArray[np.intp]
    sine: NDArray[np.bool_]
    partner: NDArray[np.intp]


@cache
def _functions() -> _Functions:
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)
    radius, direction = np.hypot(x, y).ravel() / RADIUS, np.arctan2(y, x).ravel()
    names = sorted(_names(), key=lambda name: name[0] % 2)
    values = []
    for order, zero, sine in names:
        radial = jv(order, zero * radius) * (radius < 1)
        radial *= math.sqrt(2 if order else 1) / np.linalg.norm(radial)
        values.append(radial * (-np.sin(order * direction) if sine else np.cos(order * direction)))
    numbers = {name: number for number, name in enumerate(names)}
    return _Functions(
        np.array(values, np.float32).T.copy(),
        np.array([order for order, _, _ in names]),
        np.array([sine for _, _, sine in names]),
        np.array([numbers.get((order, zero, not sine), numbers[order, zero, sine]) for order, zero, sine in names]),
    )


def _names() -> Iterator[tuple[int, float, bool]]:
    """Yield order, zero and whether it is the sine of all functions."""
    order = 0
    while (zeros := jn_zeros(order, int(_HIGHEST)))[0] <= _HIGHEST:
        for zero in zeros[zeros <= _HIGHEST].tolist():
            yield from ((order, zero, sine) for sine in ((False, True) if order else (False,)))
        order += 1


def length() -> int:
    """Return how many numbers a signature has."""
    return len(_functions().order)


def even() -> int:
    """Return how many of these come first that half a turn leaves as they are; it changes the sign of the others."""
    return int((_functions().order % 2 == 0).sum())


def signatures_of(cells: Cells) -> NDArray[np.int8]:
    """Describe the discs of a slide, as `signatures` does, from its finest cells."""
    return signatures(cells.coarser(CELL_PX // CELL).banded())


def signatures(banded: Plane) -> NDArray[np.int8]:
    """Describe the discs of a slide.

    Parameters
    ----------
    banded : (Y, X) float32
        Its banded cells of `CELL_PX` pixels.

    Returns
    -------
    (rows, columns, L) int8
        Of the discs about every other cell of every other row, the first one's among them; 256 times a vector of unit
        length, shorter where the slide varies little.
    """
    functions = _functions().values
    rows, columns = (-(-size // _STEP) for size in banded.shape)
    floor = _FLAT * functions.shape[1] * float((banded**2).mean()) + 1e-12
    padded = np.pad(banded, RADIUS)
    found = np.empty((rows, columns, functions.shape[1]), np.int8)
    at_once = max(_AT_ONCE // columns, 1)
    for first in range(0, rows, at_once):
        last = min(first + at_once, rows)
        strip = padded[first * _STEP : (last - 1) * _STEP + _SIDE]
        discs = sliding_window_view(strip, (_SIDE, _SIDE))[::_STEP, ::_STEP].reshape(-1, _SIDE**2)
        numbers = discs @ functions
        numbers /= np.sqrt((numbers**2).sum(axis=1, keepdims=True) + floor)
        found[first:last] = np.clip(np.rint(numbers * _SCALE), -127, 127).reshape(last - first, columns, -1)
    return found


def poses() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the angles in degrees, from a query to a slide after x is perhaps mirrored, and whether it is."""
    angles = np.arange(0, 360, _TURN_DEG)
    return np.tile(angles, 2), np.repeat([False, True], len(angles))


def at_all_poses(query: Query, away: tuple[float, float] = (0, 0)) -> Plane:
    """Describe a disc of a query as it is at each of the `poses`.

    Parameters
    ----------
    query : Query
        What is looked for.
    away : (float, float)
        Way ``(x, y)`` in pixels from the query's middle to the disc's.

    Returns
    -------
    (P, L) float32
        So scaled that the product with a signature is their cosine.
    """
    functions = _functions()
    numbers = _disc(query, away).ravel() @ functions.values
    numbers /= max(float(np.linalg.norm(numbers)), 1e-9) * _SCALE
    angles, mirrored = poses()
    mirror = np.where(functions.order % 2 == 0, 1, -1) * np.where(functions.sine, -1, 1)
    seen = np.where(mirrored[:, None], mirror * numbers, numbers)
    turn = np.radians(angles)[:, None] * functions.order
    ahead = np.where(functions.sine, -1, 1) * np.sin(turn)
    return np.asarray(seen * np.cos(turn) + seen[:, functions.partner] * ahead, dtype=np.float32)


def _disc(query: Query, away: tuple[float, float]) -> Plane:
    """Return the banded cells about a place of a query, zero beyond its border."""
    reach = query.side / 2 + max(abs(away[0]), abs(away[1]))
    count = max(math.ceil(reach / CELL_PX), RADIUS) * 2 + 1
    values, _ = turned_cells(query, CELL_PX, count, np.eye(2), away)
    out = (count - _SIDE) // 2
    return values[out : out + _SIDE, out : out + _SIDE]
