"""results.csv: a row a pair."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.files import csv_text, read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.errors import Problem
    from comir_batch.pipeline.by_hand import Decision
    from comir_batch.pipeline.records import JobRecord

_FIRST = ("pair_id", "verdict", "reasons", "decision", "decided_by", "note")
_LAST = ("seconds", "peak_mb")


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
    decision : Decision or None
        What a person decided, if that stands.
    """

    pair_id: str
    verdict: Verdict | None
    reasons: tuple[str, ...] = ()
    metrics: dict[str, float | str | None] = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: int = 0
    decision: Decision | None = None

    @property
    def final(self) -> Verdict | None:
        """The person's verdict, or else the judge's."""
        return self.decision.verdict if self.decision else self.verdict


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


def left_out(problems: Iterable[Problem], pair_ids: Mapping[int, str]) -> list[PairResult]:
    """Return a result for each bad row that was skipped; one without a pair_id of its own is named after its number."""
    reasons: dict[int, list[str]] = {}
    for problem in problems:
        reasons.setdefault(problem.row, []).append(f"left out: {problem}")
    times = Counter(name for name in pair_ids.values() if name)
    own = {row: name for row, name in pair_ids.items() if times[name] == 1}
    return [PairResult(own.get(row, f"row {row}"), Verdict.ERROR, tuple(why)) for row, why in reasons.items()]


def results_table(results: Iterable[PairResult]) -> str:
    """Return the text of results.csv; metrics that any pair has are columns, empty where a pair has none."""
    rows = list(results)
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    return csv_text([*_FIRST, *metrics, *_LAST], [_cells(row, metrics) for row in rows])


def _cells(row: PairResult, metrics: Iterable[str]) -> list[object]:
    verdict = "" if row.verdict is None else row.verdict.value
    values = ["" if row.metrics.get(name) is None else row.metrics[name] for name in metrics]
    decision = decision_cells(row.decision)
    return [row.pair_id, verdict, "; ".join(row.reasons), *decision, *values, row.seconds, row.peak_mb]


def decision_cells(decision: Decision | None) -> tuple[str, str, str]:
    """Return what the columns `decision`, `decided_by` and `note` hold."""
    return (decision.verdict.value, decision.by, decision.note) if decision else ("", "", "")


def with_decision(table: str, pair: str, decision: Decision) -> str:
    """Return the text of a results.csv with a decision in a pair's row."""
    head, *rows = csv.reader(io.StringIO(table, newline=""))
    if tuple(head[: len(_FIRST)]) != _FIRST:  # of an earlier version; the next run writes it anew
        return table
    first = _FIRST.index("decision")
    for row in rows:
        if row[0] == pair:
            row[first : first + 3] = decision_cells(decision)
    return csv_text(head, rows)
