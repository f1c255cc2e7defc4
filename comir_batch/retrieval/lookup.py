"""Where in many slides a query may lie: normalised correlation of coarse cells, then of finer ones about the best.

Every place of every slide is compared with the query at every angle, mirrored or not, on cells that are about a
sixteenth of the query's side; the best distinct ones are compared again on cells half as large. One correlation is a
matrix product of the slides' windows of cells with the query's templates, window after window in bounded memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.retrieval.cells import CELL
from comir_batch.retrieval.templates import Query, linear, templates

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from comir_batch.retrieval.cells import Cells
    from comir_batch.retrieval.templates import Templates

    Plane = NDArray[np.float32]

_ACROSS = 16  # coarse cells across the query, about
_COARSE_DEG, _FINE_DEG = 7.5, 3.75
_WINDOW_BYTES = 64_000_000
_FLAT = 0.1  # of the slides' mean energy: what is added to a window's, so that noise on flat tissue is no match
_LEAST_TISSUE = 0.4
_REACH = 1  # fine cells either way of where the coarse ones say
_APART = 2.0  # coarse cells between distinct places
_KEPT = 800  # coarse hits that are looked at more finely


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


class _Coarse(NamedTuple):
    score: Plane
    pose: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]


def cell_side(query: Query) -> int:
    """Return the pixels along each side of the coarse cells that suit a query: a power of two times twice `CELL`."""
    side = 2 * CELL
    while side * 2 * _ACROSS <= query.side * 1.5:
        side *= 2
    return side


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
    side = cell_side(query)
    coarse, fine = templates(query, side, _COARSE_DEG), templates(query, side // 2, _FINE_DEG)
    hits = [hit for number, slide in enumerate(slides) for hit in _coarse_hits(number, slide, coarse)]
    best = sorted(hits, key=lambda hit: -hit.score)[:_KEPT]
    planes = {number: _Fine.of(slides[number], fine) for number in {hit.slide for hit in best}}
    return distinct([planes[hit.slide].refined(hit) for hit in best], _APART * side, count)


def distinct(hits: Sequence[Hit], apart: float, count: int) -> list[Hit]:
    """Return so many hits, best first, without those within so many pixels of a better one in the same slide."""
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: -hit.score):
        if len(kept) == count:
            break
        near = (other for other in kept if other.slide == hit.slide)
        if all(math.dist((hit.x, hit.y), (other.x, other.y)) > apart for other in near):
            kept.append(hit)
    return kept


def _coarse_hits(number: int, slide: Cells, coarse: Templates) -> list[Hit]:
    """Return the best pose at each cell, of the best few cells."""
    cells = slide.coarser(coarse.side // CELL)
    found = _best_poses(cells.banded(), cells.tissue, coarse)
    order = np.argsort(-found.score, kind="stable")[:_KEPT]
    middle = (coarse.side - 1) / 2
    return [
        Hit(
            number,
            float(found.column[k] * coarse.side + middle),
            float(found.row[k] * coarse.side + middle),
            float(coarse.angles[found.pose[k]]),
            bool(coarse.mirrored[found.pose[k]]),
            float(found.score[k]),
        )
        for k in order
    ]


def _best_poses(banded: Plane, tissue: Plane, coarse: Templates) -> _Coarse:
    """Return the best pose at each cell on tissue."""
    count = coarse.values.shape[1]
    margin = count // 2
    padded, covered = np.pad(banded, margin), np.pad(tissue, margin)
    flat = coarse.values.reshape(len(coarse.values), -1).T
    floor = _floor(banded, coarse)
    rows, columns = np.nonzero(tissue > 0)
    parts = []
    for part in _parts(len(rows), count):
        window = (rows[part], columns[part])
        energy = _windows(padded**2, count)[window].sum(axis=(1, 2))
        share = _windows(covered, count)[window].mean(axis=(1, 2))
        products = _windows(padded, count)[window].reshape(len(energy), -1) @ flat
        pose = products.argmax(axis=1)
        score = products[np.arange(len(pose)), pose] / np.sqrt(energy + floor)
        parts.append((np.where(share >= _least(coarse), score, -1), pose))
    scores, poses = zip(*parts, strict=True) if parts else ((np.zeros(0),), (np.zeros(0, np.intp),))
    return _Coarse(np.concatenate(scores).astype(np.float32), np.concatenate(poses), rows, columns)


def _floor(banded: Plane, made: Templates) -> float:
    count = int(made.values.shape[1])
    return _FLAT * float((banded**2).mean()) * count**2 + 1e-12


def _least(coarse: Templates) -> float:
    return _LEAST_TISSUE * float(coarse.inside.mean())


def _parts(number: int, count: int) -> Iterator[slice]:
    rows = max(_WINDOW_BYTES // (4 * count**2), 1)
    return (slice(start, start + rows) for start in range(0, number, rows))


def _windows(padded: Plane, count: int) -> Plane:
    return np.lib.stride_tricks.sliding_window_view(padded, (count, count))


class _Fine(NamedTuple):
    """A slide's finer cells and the query's templates of that size."""

    banded: Plane
    floor: float
    fine: Templates

    @classmethod
    def of(cls, slide: Cells, fine: Templates) -> _Fine:
        banded = slide.coarser(fine.side // CELL).banded()
        return cls(banded, _floor(banded, fine), fine)

    def refined(self, hit: Hit) -> Hit:
        """Return the best place and pose about a hit."""
        fine, count, middle = self.fine, self.fine.values.shape[1], (self.fine.side - 1) / 2
        margin = count // 2 + _REACH
        poses = fine.near(hit.angle, mirrored=hit.mirrored, within=_COARSE_DEG)
        column, row = (round((place - middle) / fine.side) for place in (hit.x, hit.y))
        window = _cut(self.banded, row - margin, column - margin, count + 2 * _REACH)
        moved = _windows(window, count).reshape(-1, count**2)
        norms = np.sqrt(np.einsum("ij,ij->i", moved, moved) + self.floor)
        scores = (moved @ fine.values[poses].reshape(len(poses), -1).T) / norms[:, None]
        place, pose = np.unravel_index(int(scores.argmax()), scores.shape)
        down, right = divmod(int(place), 2 * _REACH + 1)
        return Hit(
            hit.slide,
            (column + right - _REACH) * fine.side + middle,
            (row + down - _REACH) * fine.side + middle,
            float(fine.angles[poses[pose]]),
            hit.mirrored,
            float(scores[place, pose]),
        )


def _cut(plane: Plane, top: int, left: int, side: int) -> Plane:
    """Return a square of a plane, zero beyond it."""
    out = np.zeros((side, side), np.float32)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + side, plane.shape[0]), min(left + side, plane.shape[1])
    if y0 < y1 and x0 < x1:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = plane[y0:y1, x0:x1]
    return out
