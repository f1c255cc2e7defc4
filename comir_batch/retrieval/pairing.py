"""Which of two unsorted tables belong together: everyone's scores, and the assignment that makes most of them."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from comir_batch.core.errors import ConfigError
from comir_batch.core.manifest import OPTIONAL, REQUIRED
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import write_json
from comir_batch.pipeline.files import write_text
from comir_batch.pipeline.representing import RepresentRequest, inspect_slides
from comir_batch.retrieval.find import Finder, best_of_each
from comir_batch.retrieval.index import IndexRequest, build_index
from comir_batch.retrieval.query_image import represented_query

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.transform import Affine
    from comir_batch.execution.stop import StopRequest
    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.representing import SlideRow
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.find import Match
    from comir_batch.retrieval.index import Index, IndexedSlide

SURE = 1.3
"""Times as high as the next place's a score must be for a pair to be sure: half way between right and wrong ones."""
_STEEP = 16.0
_STANDS_OUT = 1.6  # times the median of a query's scores: a place that is no accident, sure or not
_NOT = 1e-6
_FIELD = 4.0  # times as large as a field of view is what it is a field of
REPORT = ("pair_id", "fixed", "moving", "status", "confidence", "margin", "score", "instead")


class Status(StrEnum):
    """What is said of a pair."""

    SURE = "sure"
    AMBIGUOUS = "ambiguous"
    NO_PARTNER = "no partner"


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


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What is proposed for one slide.

    Attributes
    ----------
    fixed, moving : IndexedSlide or None
        None on the side where there is no partner.
    margin : float
        Times as high as the best score elsewhere the pair's is; 0 without one.
    start : Affine or None
        Fixed µm to moving µm.
    instead : str
        The slide that is as likely, of an ambiguous pair; empty if it is another place in the same.
    """

    fixed: IndexedSlide | None
    moving: IndexedSlide | None
    status: Status
    margin: float = 0.0
    score: float = 0.0
    start: Affine | None = None
    instead: str = ""

    @property
    def name(self) -> str:
        """The pair_id; it says so where a person should look."""
        names = "_".join(slide.name for slide in (self.fixed, self.moving) if slide is not None)
        return names[:90] + ("-unsure" if self.status is Status.AMBIGUOUS else "")

    @property
    def confidence(self) -> float:
        """From 0 to 1, one half at a margin of `SURE`; grows with the margin, and is no measured probability."""
        return float(1 / (1 + (SURE / max(self.margin, _NOT)) ** _STEEP))


def propose(
    request: PairRequest, subscriber: Subscriber, stop: StopRequest, say: Callable[[str], object]
) -> list[Proposal]:
    """Represent both tables, compare everyone with everyone, and assign one to one; the surest first.

    The table with the larger slides is searched for those of the other.

    Raises
    ------
    ManifestError, ConfigError, ModelError, SlideError
        If a table or a slide cannot be used.
    """
    _require_modalities(request)
    request = _with_fields_whole(request)
    fixed, moving = (
        build_index(
            IndexRequest(table, rows, request.model, request.work / side, request.config, request.command),
            subscriber,
            stop,
        )
        for table, rows, side in zip(request.tables, (request.fixed, request.moving), ("fixed", "moving"), strict=True)
    )
    fixed_slides, moving_slides = _asked(fixed, request.fixed), _asked(moving, request.moving)
    if _area(fixed_slides) >= _area(moving_slides):
        found = _compared(moving_slides, Finder(fixed), fixed_slides, partial(_told, stop, say))
        return _ordered(_assigned(moving_slides, fixed_slides, found, searched_is_fixed=True))
    found = _compared(fixed_slides, Finder(moving), moving_slides, partial(_told, stop, say))
    return _ordered(_assigned(fixed_slides, moving_slides, found, searched_is_fixed=False))


def write_proposals(out: Path, proposals: Sequence[Proposal], model: Model) -> tuple[Path, Path]:
    """Write the manifest of all pairs, sure or not, their starts, and a table of all proposals; return both files."""
    out.parent.mkdir(parents=True, exist_ok=True)
    starts, report = out.with_suffix(".starts"), out.with_suffix(".pairs.csv")
    starts.mkdir(exist_ok=True)
    columns = (*REQUIRED, *(name for name in OPTIONAL if name in _USED))
    rows = []
    for each in proposals:
        if each.fixed is not None and each.moving is not None and each.start is not None:
            start = starts / f"{each.name}.json"
            write_json(Composite((each.start,)), start)
            rows.append(_manifest_row(each, start.resolve(), model))
    write_text(out, _csv(columns, [[row[name] for name in columns] for row in rows]))
    write_text(report, _csv(REPORT, [report_row(each) for each in proposals]))
    return out, report


_USED = (
    *("fixed_channel", "moving_channel", "fixed_mpp", "moving_mpp", "fixed_series", "moving_series"),
    *("fixed_mask", "moving_mask", "initial_transform", "model"),
)


def report_row(each: Proposal) -> list[str]:
    """Return the cells of `REPORT` for a proposal."""
    there = each.fixed is not None and each.moving is not None
    return [
        each.name if there else "",
        "" if each.fixed is None else each.fixed.name,
        "" if each.moving is None else each.moving.name,
        each.status.value,
        f"{each.confidence:.2f}" if there else "",
        f"{each.margin:.2f}" if there else "",
        f"{each.score:.1f}" if there else "",
        each.instead,
    ]


def _manifest_row(each: Proposal, start: Path, model: Model) -> dict[str, str]:
    row = {"pair_id": each.name, "initial_transform": str(start)}
    row["model"] = model.card.name if model.shipped else str(model.folder)
    for side, slide in (("fixed", each.fixed), ("moving", each.moving)):
        assert slide is not None  # noqa: S101  the caller has looked
        row[side], row[f"{side}_modality"] = str(slide.spec.path), slide.modality
        row[f"{side}_channel"], row[f"{side}_series"] = slide.spec.channel, str(slide.spec.series)
        row[f"{side}_mask"] = "" if slide.mask is None else str(slide.mask)
        row[f"{side}_mpp"] = "" if slide.spec.mpp is None else str(slide.spec.mpp)
    return row


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _require_modalities(request: PairRequest) -> None:
    for table, rows in zip(request.tables, (request.fixed, request.moving), strict=True):
        known = sorted({row.modality for row in rows})
        if len(known) != 1:
            raise ConfigError(f"{table} has slides of {' and '.join(known)}; give a table of one modality")
    if request.fixed[0].modality == request.moving[0].modality:
        raise ConfigError(f"both tables are of {request.fixed[0].modality}; give one of each modality")


def _with_fields_whole(request: PairRequest) -> PairRequest:
    """Return the request with masks that mark the whole of fields of view, which have none.

    What is found as tissue on a field that is full of it is its brightest part, too little to register by.
    """
    areas = [
        float(np.median([math.prod(pair.fixed.info.grid().size_um) for pair in _inspected(request, table, rows)]))
        for table, rows in zip(request.tables, (request.fixed, request.moving), strict=True)
    ]
    if max(areas) < _FIELD * min(areas):
        return request
    mask = (request.work / "whole.png").resolve()
    mask.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(mask), np.full((8, 8), 255, np.uint8))
    if areas[0] < areas[1]:
        return replace(request, fixed=_masked(request.fixed, mask))
    return replace(request, moving=_masked(request.moving, mask))


def _inspected(request: PairRequest, table: Path, rows: tuple[SlideRow, ...]) -> tuple[Pair, ...]:
    return inspect_slides(RepresentRequest(table, rows, request.model, request.work, request.config))


def _masked(rows: Sequence[SlideRow], mask: Path) -> tuple[SlideRow, ...]:
    return tuple(row if row.mask else replace(row, mask=mask) for row in rows)


def _asked(index: Index, rows: Sequence[SlideRow]) -> list[IndexedSlide]:
    slides = {slide.name: slide for slide in index.slides}
    return [slides[row.name] for row in rows]


def _area(slides: Sequence[IndexedSlide]) -> float:
    sizes = [slide.represented.grid.size_um for slide in slides]
    return float(np.median([width * height for width, height in sizes]))


def _compared(
    queries: Sequence[IndexedSlide], finder: Finder, searched: Sequence[IndexedSlide], say: Callable[[str], object]
) -> list[list[Match]]:
    found = []
    for number, slide in enumerate(queries, start=1):
        image = represented_query(slide.represented, slide.name)
        found.append([match for match in finder.places(image, searched) if match.verified])
        say(f"{slide.name}: compared, {number} of {len(queries)}")
    return found


def _told(stop: StopRequest, say: Callable[[str], object], text: str) -> None:
    """Tell of one slide that is done, and stop there if asked to."""
    say(text)
    stop.check()


def _assigned(
    queries: Sequence[IndexedSlide],
    searched: Sequence[IndexedSlide],
    found: Sequence[Sequence[Match]],
    *,
    searched_is_fixed: bool,
) -> list[Proposal]:
    columns = {slide.name: number for number, slide in enumerate(searched)}
    scores = np.zeros((len(queries), len(searched)))
    for row, matches in enumerate(found):
        for match in best_of_each(matches):
            scores[row, columns[match.slide.name]] = match.score
    chosen = dict(zip(*(side.tolist() for side in assign(scores)), strict=True))
    proposals = []
    for row, query in enumerate(queries):
        column = chosen.get(row)
        chosen_match = None if column is None else _in(found[row], searched[column])
        proposals.append(_proposal(query, chosen_match, found[row], searched_is_fixed=searched_is_fixed))
    return proposals + _left(searched, proposals, searched_is_fixed=searched_is_fixed)


def assign(scores: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the one-to-one assignment with the highest sum of scores; zeros are no pairs."""
    rows, columns = linear_sum_assignment(scores, maximize=True)
    real = scores[rows, columns] > 0
    return rows[real], columns[real]


def _in(matches: Sequence[Match], slide: IndexedSlide) -> Match | None:
    return next((match for match in matches if match.slide.name == slide.name), None)


def _proposal(
    query: IndexedSlide, match: Match | None, places: Sequence[Match], *, searched_is_fixed: bool
) -> Proposal:
    alone = Proposal(None, query, Status.NO_PARTNER) if searched_is_fixed else Proposal(query, None, Status.NO_PARTNER)
    if match is None:
        return alone
    others = [place for place in places if place is not match]
    status, margin = judged(match.score, [place.score for place in others])
    if status is Status.NO_PARTNER:
        return alone
    instead = others[0].slide.name if status is Status.AMBIGUOUS and others else ""
    if searched_is_fixed:
        return Proposal(match.slide, query, status, margin, match.score, match.transform.inverse(), instead)
    return Proposal(query, match.slide, status, margin, match.score, match.transform, instead)


def judged(score: float, others: Sequence[float]) -> tuple[Status, float]:
    """Return what a score says beside those of other places, and how many times as high as theirs it is.

    Sure where it is so by far. Ambiguous where it is not, but is no accident, as most of the others are. Else there is
    no partner. A single place, with nothing beside it, is ambiguous.
    """
    if not others:
        return Status.AMBIGUOUS, 1.0
    margin = score / max(*others, _NOT)
    if margin >= SURE:
        return Status.SURE, margin
    return (Status.AMBIGUOUS if score >= _STANDS_OUT * float(np.median(others)) else Status.NO_PARTNER), margin


def _left(
    searched: Sequence[IndexedSlide], proposals: Sequence[Proposal], *, searched_is_fixed: bool
) -> list[Proposal]:
    """Return the slides that nothing was found in."""
    partners = [each.fixed if searched_is_fixed else each.moving for each in proposals]
    taken = {slide.name for slide in partners if slide is not None}
    left = [slide for slide in searched if slide.name not in taken]
    if searched_is_fixed:
        return [Proposal(slide, None, Status.NO_PARTNER) for slide in left]
    return [Proposal(None, slide, Status.NO_PARTNER) for slide in left]


def _ordered(proposals: Sequence[Proposal]) -> list[Proposal]:
    return sorted(proposals, key=lambda each: -each.confidence)
