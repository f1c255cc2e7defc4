"""Where in a large gallery a query may lie: signatures compared first, cells only where these agree.

Correlating every place with every pose takes as much longer as there is more to search. Signatures are some twenty
times as quick: coarse in place, so that the best of them are compared again with what the query has a few pixels beside
its middle, and the best of those correlated as `lookup` does it, near the place and the pose that they name.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from comir_batch.core.errors import SlideError
from comir_batch.retrieval.cells import CELL
from comir_batch.retrieval.lookup import (
    APART,
    STEP_DEG,
    Hit,
    best_poses,
    distinct,
    hit_at,
    looked_up_part,
    mean_energy,
)
from comir_batch.retrieval.signatures import CELL_PX, STRIDE_PX, at_all_poses, even, poses
from comir_batch.retrieval.templates import linear, templates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.retrieval.cells import Cells
    from comir_batch.retrieval.templates import Query, Templates

    Plane = NDArray[np.float32]
    _Number = TypeVar("_Number", np.float32, np.bool_)

SHORTLISTED = 200
"""Places that are correlated by cells."""
_SMALLEST = 200  # pixels of a query's shorter side
_AGAIN, _AGAIN_SHARE = 4000, 0.01  # discs that are compared again: at least so many, and such a share of all
_BESIDE = [(x, y) for x in (-16 / 3, 0.0, 16 / 3) for y in (-16 / 3, 0.0, 16 / 3)]  # pixels: discs lie 16 apart
_AT_ONCE = 512  # discs whose cosines at all poses stay in the cache
_PIECE, _THREADS = 65536, 8
_BUCKET_PX = 32  # of neighbours, the best one stays
_REACH = 2  # cells either way that are looked at near a place
_WITHIN_DEG = 7.5


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What of a slide is in memory while queries are looked for.

    Attributes
    ----------
    banded : (Y, X) float32
        Its banded cells of `CELL_PX` pixels.
    there : (Y, X) bool
        Cells that count.
    signatures : (rows, columns, L) int8
        See `signatures.signatures`.
    """

    banded: Plane
    there: NDArray[np.bool_]
    signatures: NDArray[np.int8]

    @classmethod
    def of(cls, cells: Cells, signatures: NDArray[np.int8]) -> Self:
        """Return what is needed of a slide's finest cells."""
        coarse = cells.coarser(CELL_PX // CELL)
        return cls(coarse.banded(), coarse.weight > 0, signatures)


def can_be_shortlisted(query: Query) -> bool:
    """Return whether a query is large enough: a disc is 240 pixels wide, and of 164 pixels a quarter was not found."""
    return bool(min(query.mask.shape) >= _SMALLEST)


def require_shortlistable(query: Query) -> None:
    """Refuse a query that is too small for a shortlist.

    Raises
    ------
    SlideError
        If it is.
    """
    if not can_be_shortlisted(query):
        height, width = query.mask.shape
        raise SlideError(
            f"a query of {width} x {height} pixels is too small for a shortlist, which takes {_SMALLEST} a side; "
            "compare it with all places"
        )


def shortlist(query: Query, gallery: Sequence[NDArray[np.int8]], count: int) -> list[Hit]:
    """Return the places whose signatures agree best with a query's, best first.

    Parameters
    ----------
    query : Query
        What is looked for; as large as `can_be_shortlisted` wants it.
    gallery : sequence of (rows, columns, L) int8
        Signatures of each slide.
    count : int
        Places that are wanted, no two within some 32 pixels of each other.

    Returns
    -------
    list of Hit
        A few pixels and degrees off; their score is the cosine of the signatures.

    Raises
    ------
    SlideError
        If the query is too small.
    """
    require_shortlistable(query)
    slides, rows = _best_discs(at_all_poses(query), gallery)
    lattice = np.array([each.shape[1] for each in gallery])[slides]
    places = np.column_stack([rows % lattice, rows // lattice]) * STRIDE_PX + (CELL_PX - 1) / 2
    found = _compared_again(query, _gathered(gallery, slides, rows))
    matrices = np.array([linear(angle, mirrored=bool(mirror)) for angle, mirror in zip(*poses(), strict=True)])
    places = places - np.einsum("nij,nj->ni", matrices[found.pose], np.array(_BESIDE)[found.beside])
    kept = _best_in_buckets(slides, places, found.score)[:count]
    angles, mirrored = poses()
    return [
        Hit(
            int(slides[k]),
            float(places[k, 0]),
            float(places[k, 1]),
            float(angles[found.pose[k]]),
            bool(mirrored[found.pose[k]]),
            float(found.score[k]),
        )
        for k in kept
    ]


def look_up_shortlisted(query: Query, slides: Sequence[Searched], count: int) -> list[Hit]:
    """Return what `lookup.look_up` does, of the places on a shortlist alone.

    Raises
    ------
    SlideError
        If the query is too small.
    """
    part, away = looked_up_part(query)
    rough = shortlist(part, [slide.signatures for slide in slides], SHORTLISTED)
    made = templates(part, CELL_PX, STEP_DEG)
    energies = {number: mean_energy(slides[number].banded, made.values.shape[1]) for number in {h.slide for h in rough}}
    near = (_near(hit, slides[hit.slide], made, energies[hit.slide]) for hit in rough)
    hits = [hit for hit in near if hit.score > -1]  # where enough overlaps
    return [hit.moved(hit.matrix @ away) for hit in distinct(hits, APART * CELL_PX, count)]


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """Of each disc: the best cosine, the pose that has it, and which of the places beside the query's middle."""

    score: Plane
    pose: NDArray[np.intp]
    beside: NDArray[np.intp]


def _best_discs(seen: Plane, gallery: Sequence[NDArray[np.int8]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the slides of the discs that agree best with a query at some pose, and their numbers there."""
    starts = np.cumsum([0, *(each.shape[0] * each.shape[1] for each in gallery)])
    flat = np.empty(starts[-1], np.float32)
    pieces = [
        (each.reshape(-1, each.shape[-1])[first : first + _PIECE], flat[start + first : end][:_PIECE])
        for each, start, end in zip(gallery, starts, starts[1:], strict=False)
        for first in range(0, int(end - start), _PIECE)
    ]
    with ThreadPoolExecutor(_threads()) as pool:
        list(pool.map(lambda piece: _best_cosines(seen, *piece), pieces))
    wanted = min(max(_AGAIN, math.ceil(_AGAIN_SHARE * len(flat))), len(flat))
    chosen = np.argpartition(-flat, wanted - 1)[:wanted]
    slides = np.searchsorted(starts, chosen, side="right") - 1
    return slides, chosen - starts[slides]


def _best_cosines(seen: Plane, discs: NDArray[np.int8], best: Plane) -> None:
    """Write the best cosine of each disc with any pose; poses half a turn apart share their two sums."""
    half, first = seen[poses()[0] < 180], even()
    with_even, with_odd = half[:, :first].T.copy(), half[:, first:].T.copy()
    for start in range(0, len(discs), _AT_ONCE):
        part = discs[start : start + _AT_ONCE].astype(np.float32)
        same, other = part[:, :first] @ with_even, part[:, first:] @ with_odd
        np.abs(other, out=other)
        np.max(np.add(same, other, out=other), axis=1, out=best[start : start + _AT_ONCE])


def _gathered(gallery: Sequence[NDArray[np.int8]], slides: NDArray[np.intp], rows: NDArray[np.intp]) -> Plane:
    found = np.empty((len(rows), gallery[0].shape[-1]), np.float32)
    for number in np.unique(slides):
        mine = slides == number
        found[mine] = gallery[number].reshape(-1, found.shape[1])[rows[mine]]
    return found


def _compared_again(query: Query, discs: Plane) -> _Compared:
    with ThreadPoolExecutor(_threads()) as pool:
        found = list(pool.map(lambda away: _best_pose(at_all_poses(query, away), discs), _BESIDE))
    scores, at = np.stack([score for score, _ in found]), np.stack([pose for _, pose in found])
    beside = scores.argmax(axis=0)
    every = np.arange(len(discs))
    return _Compared(scores[beside, every], at[beside, every], beside)


def _best_pose(seen: Plane, discs: Plane) -> tuple[Plane, NDArray[np.intp]]:
    """Return the best cosine of each disc with any pose, and which that is."""
    cosines: Plane = discs @ seen.T
    best = cosines.argmax(axis=1)
    return cosines[np.arange(len(discs)), best], best


def _threads() -> int:
    return min(os.cpu_count() or 1, _THREADS)


def _best_in_buckets(slides: NDArray[np.intp], places: NDArray[np.float64], score: Plane) -> NDArray[np.intp]:
    """Return the numbers of the best place in each square of a slide, best first."""
    order = np.argsort(-score, kind="stable")
    buckets = np.column_stack([slides, (places // _BUCKET_PX).astype(np.intp)])[order]
    _, first = np.unique(buckets, axis=0, return_index=True)
    return order[np.sort(first)]


def _near(rough: Hit, slide: Searched, made: Templates, energy: float) -> Hit:
    """Return the place near a rough one, and the pose near its, that correlate best."""
    around = made.values.shape[1] // 2 + _REACH
    middle = (CELL_PX - 1) / 2
    height, width = slide.banded.shape
    column = min(max(round((rough.x - middle) / CELL_PX), 0), width - 1)
    row = min(max(round((rough.y - middle) / CELL_PX), 0), height - 1)
    numbers = made.near(rough.angle, mirrored=rough.mirrored, within=_WITHIN_DEG)
    banded, there = _window(slide.banded, row, column, around), _window(slide.there, row, column, around)
    scores, which = best_poses(banded, there, made, numbers.tolist(), energy)
    down, right = (int(place) for place in np.unravel_index(int(scores.argmax()), scores.shape))
    first = np.array([column - _REACH, row - _REACH])  # the cell of the scores' first
    return hit_at(rough.slide, down, right, scores, which, made).moved(first * CELL_PX)


def _window(plane: NDArray[_Number], row: int, column: int, around: int) -> NDArray[_Number]:
    """Return a square about a cell of a slide, zero beyond it."""
    top, left = max(row - around, 0), max(column - around, 0)
    seen = plane[top : row + around + 1, left : column + around + 1]
    above, before = top - (row - around), left - (column - around)
    size = 2 * around + 1
    after = ((above, size - above - seen.shape[0]), (before, size - before - seen.shape[1]))
    return np.pad(seen, after)
