"""What is proposed for slides that belong together, or have no partner, and how it is told."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.manifest import OPTIONAL, REQUIRED
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import write_json
from comir_batch.pipeline.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.transform import Affine
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.index import IndexedSlide

SURE = 1.3
"""Times as high as the next place's a score must be for a pair to be sure: half way between right and wrong ones."""
_STEEP = 12.7  # measured, with SURE: docs/retrieval.md, "Two folders"
_STANDS_OUT = 1.6  # times the median of a query's scores: a place that is no accident, sure or not
_NOT = 1e-6  # instead of a score of nothing
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
        """From 0 to 1; see `confidence_at`."""
        return confidence_at(self.margin)


def confidence_at(margin: float) -> float:
    """Return how likely a pair of such a margin is right, one half at a margin of `SURE`."""
    return float(1 / (1 + (SURE / max(margin, _NOT)) ** _STEEP))


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
