"""Where in many slides a query may lie: normalised correlation of small, band-passed copies.

Every place of every slide is compared with the query at every angle, mirrored or not. The correlation of one pose with
a whole slide is one FFT convolution, block by block in bounded memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import cv2
import numpy as np
from scipy import ndimage

from comir_batch.retrieval.cells import CELL
from comir_batch.retrieval.templates import Query, linear, templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from comir_batch.retrieval.cells import Cells
    from comir_batch.retrieval.templates import Templates

    Plane = NDArray[np.float32]

_LARGE_CELL = 8
_SMALL = 160  # pixels of a query's side below which its cells are the finest
_MOST = 384  # pixels of a query's side that are looked up: its part with most in it
STEP_DEG = 5.0
"""Between the angles at which a query is compared."""
_FLAT = 0.1  # of the slide's mean energy: what is added to a window's, so that noise where little varies is no match
_LEAST_INSIDE = 0.4
APART = 4.0
"""Cells between distinct places."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A place that a query may come from.

    Attributes
    ----------
    slide : int
        Number of the slide.
    x, y : float
        Where the query's middle lies, in pixels of the slide's working level.
    angle : float
        Degrees from the query to the slide, after x is perhaps mirrored.
    mirrored : bool
        Whether it is.
    score : float
        Correlation of the cells.
    """

    slide: int
    x: float
    y: float
    angle: float
    mirrored: bool
    score: float

    @property
    def matrix(self) -> NDArray[np.float64]:
        """``(2, 2)`` linear part of the map from query pixels to slide pixels."""
        return linear(self.angle, mirrored=self.mirrored)

    def moved(self, way: NDArray[np.float64]) -> Hit:
        """Return the hit so many pixels ``(x, y)`` further."""
        return replace(self, x=self.x + float(way[0]), y=self.y + float(way[1]))


def cell_side(query: Query) -> int:
    """Return the pixels along each side of the cells that suit a query; small ones need smaller cells."""
    return _LARGE_CELL if query.side >= _SMALL else CELL


def look_up(query: Query, slides: Sequence[Cells], count: int) -> list[Hit]:
    """Return the places that correlate best with a query, best first.

    Parameters
    ----------
    query : Query
        What is looked for.
    slides : sequence of Cells
        The finest cells of each slide.
    count : int
        Places that are wanted; distinct ones, several may lie in one slide.
    """
    part, away = looked_up_part(query)
    side = cell_side(part)
    made = templates(part, side, STEP_DEG)
    hits = [hit for number, slide in enumerate(slides) for hit in _hits(number, slide, made, count)]
    return [hit.moved(hit.matrix @ away) for hit in distinct(hits, APART * side, count)]


class _Scored(Protocol):
    """A place in a slide, with a score."""

    @property
    def slide(self) -> int: ...
    @property
    def x(self) -> float: ...
    @property
    def y(self) -> float: ...
    @property
    def score(self) -> float: ...


_Place = TypeVar("_Place", bound=_Scored)


def distinct(hits: Sequence[_Place], apart: float, count: int) -> list[_Place]:
    """Return so many hits, best first, without those within so many pixels of a better one in the same slide."""
    kept: list[_Place] = []
    for hit in sorted(hits, key=lambda hit: -hit.score):
        if len(kept) == count:
            break
        near = (other for other in kept if other.slide == hit.slide)
        if all(math.dist((hit.x, hit.y), (other.x, other.y)) > apart for other in near):
            kept.append(hit)
    return kept


def looked_up_part(query: Query) -> tuple[Query, NDArray[np.float64]]:
    """Return the part of a large query with most that counts, and the way from its middle to the query's.

    Smaller queries are looked up whole. The way is ``(x, y)`` in pixels of the query.
    """
    height, width = query.mask.shape
    rows, columns = min(height, _MOST), min(width, _MOST)
    sums = cv2.integral(query.mask.astype(np.uint8))
    counted = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    best = np.argwhere(counted == counted.max())
    middle = np.array([(height - rows) / 2, (width - columns) / 2])
    top, left = best[np.abs(best - middle).sum(axis=1).argmin()].tolist()
    inner = np.s_[top : top + rows, left : left + columns]
    return Query(query.pixels[inner], query.mask[inner]), np.array([middle[1] - left, middle[0] - top])


def _hits(number: int, slide: Cells, made: Templates, count: int) -> list[Hit]:
    """Return a few places of a slide at which some pose scores higher than any does beside them."""
    cells, around = slide.coarser(made.side // CELL), made.values.shape[1] // 2
    banded, there = np.pad(cells.banded(), around), np.pad(cells.weight > 0, around)
    scores, poses = best_poses(banded, there, made, range(len(made.values)))
    rows, columns = np.nonzero((scores == ndimage.maximum_filter(scores, 3)) & (scores > -1))
    best = np.argsort(-scores[rows, columns], kind="stable")[: 4 * count]
    return [
        hit_at(number, row, column, scores, poses, made) for row, column in zip(rows[best], columns[best], strict=True)
    ]


def hit_at(slide: int, row: int, column: int, scores: Plane, poses: NDArray[np.intp], made: Templates) -> Hit:
    """Return the hit at a cell of a slide, of what `best_poses` returns."""
    pose = poses[row, column]
    middle = (made.side - 1) / 2 - float(made.beside[pose])
    return Hit(
        slide,
        float(column * made.side + middle),
        float(row * made.side + middle),
        float(made.angles[pose]),
        bool(made.mirrored[pose]),
        float(scores[row, column]),
    )


def best_poses(
    banded: Plane, there: NDArray[np.bool_], made: Templates, numbers: Iterable[int], energy: float | None = None
) -> tuple[Plane, NDArray[np.intp]]:
    """Correlate some poses of a query with every place of banded cells at which their square fits.

    Parameters
    ----------
    banded : (Y, X) float32
        Banded cells of a slide or of a part of it.
    there : (Y, X) bool
        Cells that count.
    made : Templates
        Of n cells a side.
    numbers : iterable of int
        The poses.
    energy : float or None
        What the squares of such cells sum up to at a place of the slide on average; by default at these places.

    Returns
    -------
    scores : (Y - n + 1, X - n + 1) float32
        Correlation of the best of the poses with its middle on each cell; -1 where too little overlaps.
    poses : of the same shape, int
        Which it is.
    """
    side = made.values.shape[1]
    best = np.full(tuple(size - side + 1 for size in banded.shape), -np.inf, np.float32)
    poses = np.zeros(best.shape, np.intp)
    for number in numbers:
        products = cv2.matchTemplate(banded, made.values[number], cv2.TM_CCORR)
        poses[products > best] = number
        np.maximum(best, products, out=best)
    energies = _sums(banded**2, side)
    floor = _FLAT * (float(energies.mean()) if energy is None else energy) + 1e-12
    enough = _sums(there.astype(np.float32), side) >= _LEAST_INSIDE * made.area
    return np.where(enough, best / np.sqrt(np.maximum(energies, 0) + floor), -1).astype(np.float32), poses


def mean_energy(banded: Plane, side: int) -> float:
    """Return the mean over all cells of a slide of the sum of squares in so many cells a side about each."""
    rows, columns = (_covered(size, side) for size in banded.shape)
    return float(rows @ (banded**2) @ columns) / banded.size


def _covered(size: int, side: int) -> NDArray[np.float32]:
    """Return in how many windows about one of so many cells in a row each of these lies."""
    place = np.arange(size)
    last, first = np.minimum(place + side // 2, size - 1), np.maximum(place - side // 2, 0)
    return (last - first + 1).astype(np.float32)


def _sums(plane: Plane, side: int) -> Plane:
    """Return the sums over all squares that fit."""
    sums = cv2.boxFilter(plane, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    inner = slice(side // 2, plane.shape[0] - side // 2), slice(side // 2, plane.shape[1] - side // 2)
    return np.asarray(sums[inner], dtype=np.float32)
