"""What is proposed for slides that belong together, or have no partner, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.manifest import OPTIONAL, REQUIRED
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import write_json
from comir_batch.pipeline.files import csv_text, write_text
from comir_batch.retrieval.margins import SURE, are_telling, confidence_at, times_as_high

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.transform import Affine
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.index import IndexedSlide

_STANDS_OUT = 1.6  # times the median of a query's scores: a place that is no accident, sure or not
_LONGEST = 80  # letters of a name, beside what tells it from others: a manifest takes 100
REPORT = ("pair_id", "fixed", "moving", "status", "confidence", "margin", "score", "instead")
"""Columns of the table of all proposals."""
_USED = (
    *("fixed_channel", "moving_channel", "fixed_mpp", "moving_mpp", "fixed_series", "moving_series"),
    *("fixed_mask", "moving_mask", "initial_transform", "model"),
)


class Status(StrEnum):
    """What is said of a pair."""

    SURE = "sure"
    AMBIGUOUS = "ambiguous"
    NO_PARTNER = "no partner"


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What is proposed for one slide.

    Attributes
    ----------
    fixed, moving : IndexedSlide or None
        None on the side where there is no partner.
    margin, score : float
        Of the pair, or of the best place of a slide without a partner; 0 where there is none. See `margins`.
    start : Affine or None
        Fixed µm to moving µm.
    instead : str
        The slide that is as likely, of an ambiguous pair; empty if it is another place in the same.
    number : int
        Tells apart those whose names would be the same; see `numbered`.
    """

    fixed: IndexedSlide | None
    moving: IndexedSlide | None
    status: Status
    margin: float = 0.0
    score: float = 0.0
    start: Affine | None = None
    instead: str = ""
    number: int = 1

    @property
    def is_pair(self) -> bool:
        """Whether there are two slides."""
        return self.fixed is not None and self.moving is not None

    @property
    def name(self) -> str:
        """The pair_id; it says so where a person should look."""
        names = "_".join(slide.name for slide in (self.fixed, self.moving) if slide is not None)
        number = f"-{self.number}" if self.number > 1 else ""
        return names[:_LONGEST] + number + ("-unsure" if self.status is Status.AMBIGUOUS else "")

    @property
    def confidence(self) -> float:
        """From 0 to 1; see `margins.confidence_at`."""
        return confidence_at(self.margin)


def numbered(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Return the proposals with a number in each name that one before has, whether in upper or in lower case."""
    taken: set[str] = set()
    told = []
    for each in proposals:
        free = (replace(each, number=number) for number in count(1))
        named = next(one for one in free if one.name.casefold() not in taken) if each.is_pair else each
        taken |= {named.name.casefold()} if named.is_pair else set()
        told.append(named)
    return told


def judged(score: float, others: Sequence[float]) -> tuple[Status, float]:
    """Return what a score says beside those of other places, and its margin.

    Sure where it is higher by far. Ambiguous where it is not, but is no accident, as most of the others are, or where
    the others are too few or too low to tell. Else there is no partner.
    """
    margin = times_as_high(score, others)
    if not are_telling(others):
        return Status.AMBIGUOUS, margin
    if margin >= SURE:
        return Status.SURE, margin
    return (Status.AMBIGUOUS if score >= _STANDS_OUT * float(np.median(others)) else Status.NO_PARTNER), margin


def write_proposals(out: Path, proposals: Sequence[Proposal], model: Model) -> tuple[Path, Path]:
    """Write the manifest of all pairs, sure or not, their starts, and a table of all proposals; return both files."""
    out.parent.mkdir(parents=True, exist_ok=True)
    starts, report = out.with_suffix(".starts"), out.with_suffix(".pairs.csv")
    starts.mkdir(exist_ok=True)
    columns = (*REQUIRED, *(name for name in OPTIONAL if name in _USED))
    rows = []
    for each in proposals:
        if each.is_pair and each.start is not None:
            start = starts / f"{each.name}.json"
            write_json(Composite((each.start,)), start)
            rows.append(_manifest_row(each, start.resolve(), model))
    write_text(out, csv_text(columns, [[row[name] for name in columns] for row in rows]))
    write_text(report, csv_text(REPORT, [report_row(each) for each in proposals]))
    return out, report


def report_row(each: Proposal) -> list[str]:
    """Return the cells of `REPORT` for a proposal."""
    return [
        each.name if each.is_pair else "",
        "" if each.fixed is None else each.fixed.name,
        "" if each.moving is None else each.moving.name,
        each.status.value,
        f"{each.confidence:.2f}" if each.is_pair else "",
        f"{each.margin:.2f}" if each.margin else "",
        f"{each.score:.1f}" if each.score else "",
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
