"""The index of a batch: counts, and a table that sorts and filters."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from comir_batch.core.verdict import Verdict
from comir_batch.report import figures
from comir_batch.report.pages import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.report.data import BatchRow, BatchSummary

THUMBNAIL_LIMIT = 500
THUMBNAIL_SIDE = 96
_WORST_FIRST = (Verdict.ERROR, Verdict.REJECT, Verdict.REVIEW, Verdict.ACCEPT)


def batch_page(rows: Sequence[BatchRow], summary: BatchSummary) -> str:
    """Return the index as self-contained HTML, what needs a person's eye first; pairs of one verdict keep their order.

    An index of more than ``THUMBNAIL_LIMIT`` pairs has no small pictures, so that it stays quick to open.
    """
    order = {verdict: position for position, verdict in enumerate(_WORST_FIRST)}
    ordered = sorted(rows, key=lambda row: order[row.verdict])
    pictured = any(row.thumbnail is not None for row in ordered)
    return render(
        "batch.html.j2",
        script="batch.js",
        summary=summary,
        rows=ordered,
        columns=summary.columns,
        order=order,
        counts=[(verdict, sum(row.verdict == verdict for row in ordered)) for verdict in _WORST_FIRST],
        thumbnails=[_thumbnail(row) for row in ordered] if pictured and len(ordered) <= THUMBNAIL_LIMIT else [],
        left_out=pictured and len(ordered) > THUMBNAIL_LIMIT,
        limit=THUMBNAIL_LIMIT,
        median_seconds=median([row.seconds for row in ordered]) if ordered else 0,
        peak_mb=max((row.peak_mb for row in ordered), default=0),
    )


def _thumbnail(row: BatchRow) -> str:
    if row.thumbnail is None:
        return ""
    small = figures.fit(row.thumbnail, THUMBNAIL_SIDE)
    return figures.data_uri(figures.displayed(small, stretch=False), quality=75)
