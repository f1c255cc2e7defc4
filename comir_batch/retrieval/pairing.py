"""Which of two unsorted tables belong together: everyone's scores, and the assignment that makes most of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from comir_batch.core.errors import ConfigError, ManifestError, Problem, SlideError
from comir_batch.pipeline.representing import RepresentRequest, inspect_slides
from comir_batch.pipeline.working import working_level
from comir_batch.retrieval.find import Finder, best_of_each, rivals
from comir_batch.retrieval.index import IndexRequest, build_index
from comir_batch.retrieval.proposals import Proposal, Status, judged, numbered
from comir_batch.retrieval.query_image import represented_query, require_room, require_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.geometry import Grid
    from comir_batch.execution.stop import StopRequest
    from comir_batch.pipeline.representing import SlideRow
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.find import Match
    from comir_batch.retrieval.index import Index, IndexedSlide

_FIELD = 4.0  # times as large as a field of view is what it is a field of


@dataclass(frozen=True, slots=True)
class PairRequest:
    """What to pair.

    Attributes
    ----------
    fixed, moving : tuple of SlideRow
        Each table's slides, all of one modality.
    tables : (Path, Path)
        The CSVs that they are from.
    model : Model
        Which knows both modalities.
    out : Path
        The manifest; `*.pairs.csv` and the folder `*.starts` are written beside it.
    work : Path
        Folder of the two indexes; the same one goes on with what is in it.
    """

    fixed: tuple[SlideRow, ...]
    moving: tuple[SlideRow, ...]
    tables: tuple[Path, Path]
    model: Model
    out: Path
    work: Path
    config: RunConfig
    command: tuple[str, ...] = ()


class Compared(NamedTuple):
    """The slides of both tables, and the places that each of those that are looked for was found at.

    Attributes
    ----------
    queries, searched : list of IndexedSlide
        Those that are looked for, of the table with the smaller slides, and those that they are looked for in.
    found : list of list of Match
        Verified places of each query, best first.
    searched_is_fixed : bool
        Whether the fixed ones are searched.
    are_fields : bool
        Whether those that are looked for are fields of view of the others, of which each may have many.
    """

    queries: list[IndexedSlide]
    searched: list[IndexedSlide]
    found: list[list[Match]]
    searched_is_fixed: bool
    are_fields: bool = False


def compare(request: PairRequest, subscriber: Subscriber, stop: StopRequest, say: Callable[[str], object]) -> Compared:
    """Represent both tables, and look for every slide of the one with the smaller slides in the other.

    Raises
    ------
    ManifestError, ConfigError, ModelError, SlideError
        If a table or a slide cannot be used.
    """
    _require_modalities(request)
    sizes = [_grids(request, table, rows) for table, rows in zip(request.tables, _rows(request), strict=True)]
    areas = [float(np.median([math.prod(grid.size_um) for grid in grids])) for grids in sizes]
    searched_is_fixed, are_fields = areas[0] >= areas[1], max(areas) >= _FIELD * min(areas)
    looked_for = int(searched_is_fixed)
    _require_sizes(_rows(request)[looked_for], sizes[looked_for], sizes[1 - looked_for], say)
    if are_fields:
        request = _with_fields_whole(request, looked_for)
    indexes = [
        build_index(
            IndexRequest(table, rows, request.model, request.work / side, request.config, request.command),
            subscriber,
            stop,
        )
        for table, rows, side in zip(request.tables, _rows(request), ("fixed", "moving"), strict=True)
    ]
    fixed, moving = (_asked(index, rows) for index, rows in zip(indexes, _rows(request), strict=True))
    queries, searched, index = (moving, fixed, indexes[0]) if searched_is_fixed else (fixed, moving, indexes[1])
    found = _places(queries, Finder(index, look_up="all"), searched, partial(_told, stop, say))
    return Compared(queries, searched, found, searched_is_fixed, are_fields)


def proposed(compared: Compared) -> list[Proposal]:
    """Assign one to one, or fields each to its best slide, and return a proposal for every slide; the surest first."""
    queries, searched, found, searched_is_fixed, are_fields = compared
    columns = {slide.name: number for number, slide in enumerate(searched)}
    scores = np.zeros((len(queries), len(searched)))
    for row, matches in enumerate(found):
        for match in best_of_each(matches):
            scores[row, columns[match.slide.name]] = match.score
    chosen = dict(zip(*(side.tolist() for side in (best(scores) if are_fields else assign(scores))), strict=True))
    proposals = []
    for row, query in enumerate(queries):
        column = chosen.get(row)
        chosen_match = None if column is None else _in(found[row], searched[column])
        proposals.append(_proposal(query, chosen_match, found[row], searched_is_fixed=searched_is_fixed))
    proposals += _left(searched, proposals, searched_is_fixed=searched_is_fixed)
    return numbered(sorted(proposals, key=lambda each: (not each.is_pair, -each.confidence)))


def _rows(request: PairRequest) -> tuple[tuple[SlideRow, ...], tuple[SlideRow, ...]]:
    return request.fixed, request.moving


def _require_modalities(request: PairRequest) -> None:
    for table, rows in zip(request.tables, _rows(request), strict=True):
        known = sorted({row.modality for row in rows})
        if len(known) != 1:
            raise ConfigError(f"{table} has slides of {' and '.join(known)}; give a table of one modality")
    if request.fixed[0].modality == request.moving[0].modality:
        raise ConfigError(f"both tables are of {request.fixed[0].modality}; give one of each modality")


def _grids(request: PairRequest, table: Path, rows: tuple[SlideRow, ...]) -> list[Grid]:
    """Return the working level's pixels of each slide, from headers."""
    pairs = inspect_slides(RepresentRequest(table, rows, request.model, request.work, request.config))
    return [working_level(pair.fixed.info, request.model.card.mpp).grid for pair in pairs]


def _require_sizes(
    rows: Sequence[SlideRow], grids: Sequence[Grid], searched: Sequence[Grid], say: Callable[[str], object]
) -> None:
    problems = []
    for row, grid in zip(rows, grids, strict=True):
        try:
            require_size(str(row.spec.path), grid)
            require_room(str(row.spec.path), grid, searched, say)
        except SlideError as error:
            problems.append(Problem(row.row, "path", str(error), "Mend the image, or leave the row out"))
    if problems:
        raise ManifestError(problems)


def _with_fields_whole(request: PairRequest, looked_for: int) -> PairRequest:
    """Return the request with masks that mark the whole of fields of view, which have none.

    What is found as tissue on a field that is full of it is its brightest part, too little to register by.
    """
    mask = (request.work / "whole.png").resolve()
    mask.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(mask), np.full((8, 8), 255, np.uint8))
    if looked_for == 0:
        return replace(request, fixed=_masked(request.fixed, mask))
    return replace(request, moving=_masked(request.moving, mask))


def _masked(rows: Sequence[SlideRow], mask: Path) -> tuple[SlideRow, ...]:
    return tuple(row if row.mask else replace(row, mask=mask) for row in rows)


def _asked(index: Index, rows: Sequence[SlideRow]) -> list[IndexedSlide]:
    slides = {slide.name: slide for slide in index.slides}
    return [slides[row.name] for row in rows]


def _places(
    queries: Sequence[IndexedSlide], finder: Finder, searched: Sequence[IndexedSlide], say: Callable[[str], object]
) -> list[list[Match]]:
    found = []
    for number, slide in enumerate(queries, start=1):
        image = represented_query(slide.represented)
        found.append([match for match in finder.places(image, searched) if match.verified])
        say(f"{slide.name}: compared, {number} of {len(queries)}")
    return found


def _told(stop: StopRequest, say: Callable[[str], object], text: str) -> None:
    """Tell of one slide that is done, and stop there if asked to."""
    say(text)
    stop.check()


def assign(scores: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the one-to-one assignment with the highest sum of scores; zeros are no pairs."""
    rows, columns = linear_sum_assignment(scores, maximize=True)
    real = scores[rows, columns] > 0
    return rows[real], columns[real]


def best(scores: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the highest score of each row; zeros are no pairs."""
    rows = np.flatnonzero(scores.max(axis=1) > 0)
    return rows, scores[rows].argmax(axis=1)


def _in(matches: Sequence[Match], slide: IndexedSlide) -> Match | None:
    return next((match for match in matches if match.slide.name == slide.name), None)


def _proposal(
    query: IndexedSlide, match: Match | None, places: Sequence[Match], *, searched_is_fixed: bool
) -> Proposal:
    told = match or next(iter(places), None)
    if told is None:
        return _alone(query, searched_is_fixed=not searched_is_fixed)
    status, margin = judged(told.score, rivals(places, told))
    if match is None or status is Status.NO_PARTNER:
        alone = _alone(query, searched_is_fixed=not searched_is_fixed)
        return replace(alone, margin=margin, score=told.score)
    next_best = next((place.slide.name for place in places if place is not match), "")
    instead = next_best if status is Status.AMBIGUOUS and next_best != match.slide.name else ""
    if searched_is_fixed:
        return Proposal(match.slide, query, status, margin, match.score, match.transform.inverse(), instead)
    return Proposal(query, match.slide, status, margin, match.score, match.transform, instead)


def _alone(slide: IndexedSlide, *, searched_is_fixed: bool) -> Proposal:
    """Return the proposal of a slide without a partner, of the side that is searched."""
    fixed, moving = (slide, None) if searched_is_fixed else (None, slide)
    return Proposal(fixed, moving, Status.NO_PARTNER)


def _left(
    searched: Sequence[IndexedSlide], proposals: Sequence[Proposal], *, searched_is_fixed: bool
) -> list[Proposal]:
    """Return the slides that nothing was found in."""
    partners = [each.fixed if searched_is_fixed else each.moving for each in proposals]
    taken = {slide.name for slide in partners if slide is not None}
    return [_alone(slide, searched_is_fixed=searched_is_fixed) for slide in searched if slide.name not in taken]
