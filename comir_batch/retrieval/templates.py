"""A query's representation at every angle, mirrored or not: represented once, and turned afterwards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.retrieval.cells import Cells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

_INSIDE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked for.

    Attributes
    ----------
    pixels : (Y, X) float32
        Its representation, at the pixel size of what it is compared with.
    mask : (Y, X) bool
        Pixels that count.
    """

    pixels: Plane
    mask: NDArray[np.bool_]

    @property
    def side(self) -> int:
        """Pixels of its longer side."""
        height, width = self.mask.shape
        return int(max(height, width))


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """A query's cells at some poses, each on a square of cells about the query's middle, or half a cell beside it.

    Attributes
    ----------
    values : (P, n, n) float32
        Band-passed, of mean zero and unit length over the query; zero outside.
    inside : (P, n, n) float32
        1 inside the query, else 0.
    angles : (P,) float64
        Degrees from the query to the slide, after x is perhaps mirrored.
    mirrored : (P,) bool
        Whether it is.
    beside : (P,) float64
        Pixels of the slide, right and down, from the query's middle to that of the square.
    side : int
        Pixels along each side of a cell.
    area : float
        Cells inside the query, on average.
    """

    values: Plane
    inside: Plane
    angles: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    beside: NDArray[np.float64]
    side: int
    area: float

    def near(self, angle: float, *, mirrored: bool, within: float) -> NDArray[np.intp]:
        """Return the numbers of the poses within so many degrees of one."""
        apart = np.abs((self.angles - angle + 180) % 360 - 180)
        return np.flatnonzero((self.mirrored == mirrored) & (apart <= within + 1e-6))


def linear(angle: float, *, mirrored: bool) -> NDArray[np.float64]:
    """Return the ``(2, 2)`` matrix that mirrors x, if asked to, and turns by an angle in degrees."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])


def templates(query: Query, cell: int, step_deg: float) -> Templates:
    """Return a query's cells at all angles in steps, mirrored and not, on a slide's cells and half a cell beside them.

    A query that lies half a cell off along both axes shares too little with the cells that it is compared with: of 30
    fields of 256 pixels at such places 5 did not come first in a gallery of 219 until they were compared beside them.

    Parameters
    ----------
    query : Query
        What is looked for.
    cell : int
        Pixels along each side of a cell; a multiple of `CELL`.
    step_deg : float
        A whole number of steps makes a full turn.
    """
    count = _cells_of(query, cell)
    angles = np.arange(0, 360, step_deg)
    poses = list(product((0.0, cell / 2), (False, True), angles.tolist()))
    cells = Cells.of(query.pixels, query.mask)
    made = [_beside(cells, cell, count, linear(angle, mirrored=mirrored), beside) for beside, mirrored, angle in poses]
    inside = np.stack([inside for _, inside in made])
    return Templates(
        np.stack([values for values, _ in made]),
        inside,
        np.array([angle for _, _, angle in poses]),
        np.array([mirrored for _, mirrored, _ in poses]),
        np.array([beside for beside, _, _ in poses]),
        cell,
        float(inside.sum(axis=(1, 2)).mean()),
    )


def _cells_of(query: Query, cell: int) -> int:
    """Return how many cells, an odd number, cover the query's longer side."""
    return max(round(query.side / cell) // 2 * 2 + 1, 3)


def turned_cells(
    query: Query, cell: int, count: int, matrix: NDArray[np.float64], away: tuple[float, float] = (0, 0)
) -> tuple[Plane, Plane]:
    """Return a query's banded cells at one pose, and where they are.

    Parameters
    ----------
    query : Query
        What is looked for.
    cell : int
        Pixels along each side of a cell; a multiple of `CELL`.
    count : int
        Cells along each side of the square that is returned, an odd number.
    matrix : (2, 2) float64
        Query pixels ``(x, y)`` to slide pixels.
    away : (float, float)
        Way ``(x, y)`` in pixels from the query's middle to that of the square.

    Returns
    -------
    values, inside : (n, n) float32
        As in `Templates`.
    """
    return _turned(Cells.of(query.pixels, query.mask), cell, count, matrix, away)


def _beside(cells: Cells, cell: int, count: int, matrix: NDArray[np.float64], beside: float) -> tuple[Plane, Plane]:
    """Return cells at one pose on a square whose middle lies so many pixels of the slide right of theirs, and down."""
    right, down = np.linalg.solve(matrix, [beside, beside])
    return _turned(cells, cell, count, matrix, (float(right), float(down)))


def _turned(
    cells: Cells, cell: int, count: int, matrix: NDArray[np.float64], away: tuple[float, float] = (0, 0)
) -> tuple[Plane, Plane]:
    height, width = cells.values.shape
    finer = cell // cells.side
    canvas = count * finer
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) + np.array(away) / cells.side
    there = np.full(2, (canvas - 1) / 2)
    back = np.linalg.inv(matrix)
    to_query = np.column_stack([back, middle - back @ there])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    weight, total = (
        cv2.warpAffine(plane, to_query, (canvas, canvas), flags=flags)
        for plane in (cells.weight, cells.values * cells.weight)
    )
    values = np.where(weight > 0, total / np.maximum(weight, 1e-6), 0).astype(np.float32)
    turned = Cells(values, np.asarray(weight, np.float32), cells.side).coarser(finer)
    inside = turned.weight > _INSIDE
    values = turned.banded()
    values = np.where(inside, values - (values[inside].mean() if inside.any() else 0), 0)
    return (values / max(float(np.linalg.norm(values)), 1e-9)).astype(np.float32), inside.astype(np.float32)
