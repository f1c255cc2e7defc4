"""results.csv: a row a pair."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.files import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from comir_batch.pipeline.records import JobRecord

_COLUMNS = ("pair_id", "verdict", "reasons", "seconds", "peak_mb")


@dataclass(frozen=True)
class PairResult:
    """What became of a pair.

    Attributes
    ----------
    verdict : Verdict or None
        None where the target stage comes before the verdict.
    reasons : tuple of str
        Sentences.
    metrics : dict
        Numbers of the judge, by name.
    seconds : float
        Wall time of its tasks, added up; what pairs share counts for each.
    peak_mb : int
        Highest memory of its tasks.
    """

    pair_id: str
    verdict: Verdict | None
    reasons: tuple[str, ...] = ()
    metrics: dict[str, float | str | None] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: int = 0


def pair_result(pair: str, verdict_file: Path | None, jobs: Sequence[JobRecord], error: str) -> PairResult:
    """Read a pair's verdict, if there is one, and add up what it cost."""
    seconds = round(sum(job.seconds for job in jobs), 2)
    peak_mb = max((job.peak_mb for job in jobs), default=0)
    if error:
        return PairResult(pair, Verdict.ERROR, (error,), seconds=seconds, peak_mb=peak_mb)
    if verdict_file is None or not verdict_file.exists():
        return PairResult(pair, None, seconds=seconds, peak_mb=peak_mb)
    published = read_json(verdict_file)
    verdict, reasons = Verdict(published["verdict"]), tuple(published["reasons"])
    return PairResult(pair, verdict, reasons, published["metrics"], seconds, peak_mb)


def results_table(results: Iterable[PairResult]) -> str:
    """Return the text of results.csv; metrics that any pair has are columns, empty where a pair has none."""
    rows = list(results)
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    stream = io.StringIO(newline="")
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*_COLUMNS[:3], *metrics, *_COLUMNS[3:]])
    for row in rows:
        verdict = "" if row.verdict is None else row.verdict.value
        values = ["" if row.metrics.get(name) is None else row.metrics[name] for name in metrics]
        table.writerow([row.pair_id, verdict, "; ".join(row.reasons), *values, row.seconds, row.peak_mb])
    return stream.getvalue()
