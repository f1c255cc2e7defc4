"""The batch as a whole: results.csv, costs.json and the index of the report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import comir_batch
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.account import account_json, stage_accounts
from comir_batch.pipeline.files import read_arrays, write_json, write_text
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.results import results_table
from comir_batch.report.batch_page import batch_page
from comir_batch.report.data import BatchRow, BatchSummary, Compared, Link, Provenance, StageComparison, StageCost
from comir_batch.report.decision import DecisionText, with_decision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from comir_batch.pipeline.account import StageAccount
    from comir_batch.pipeline.inspect import Inspection
    from comir_batch.pipeline.job import Device, Job
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.records import History
    from comir_batch.pipeline.results import PairResult

# Metrics that get a column in the index; all of them stand in results.csv and on the pair's page.
_COLUMNS = ("comir_z", "raw_z", "disagreement_um", "overlap", "tre_median_um")


def write_batch(
    layout: Layout,
    results: Sequence[PairResult],
    inspection: Inspection,
    history: History,
    jobs: Mapping[str, Job],
    device: Device,
) -> None:
    """Write costs.json, report.html and then results.csv, so that a current table never stands beside an old page."""
    accounts = stage_accounts(jobs.values(), history, device)
    write_json(layout.costs, account_json(accounts, history.wall_seconds))
    pairs = {pair.name: pair for pair in inspection.pairs}
    rows = [_row(layout, result, pairs.get(result.pair_id)) for result in results if result.verdict is not None]
    summary = BatchSummary(
        title=layout.root.name,
        columns=tuple(name for name in _COLUMNS if any(row.metrics.get(name) is not None for row in rows)),
        seconds=history.wall_seconds,
        costs=stage_costs(history, jobs.values()),
        comparisons=tuple(_comparison(account) for account in accounts),
        notes=tuple(f"Skipped, {problem}" for problem in inspection.problems),
        links=tuple(Link(path.name, path.name) for path in (layout.results_csv, layout.run_json, layout.costs)),
        provenance=Provenance(version=comir_batch.__version__, finished=time.strftime("%Y-%m-%d %H:%M:%S")),
    )
    page = batch_page(rows, summary)
    for result in results:
        if result.decision:
            text = DecisionText(result.decision.verdict, result.decision.sentence)
            page = with_decision(page, result.pair_id, text)
    write_text(layout.report, page)
    write_text(layout.results_csv, results_table(results))


def is_current(layout: Layout, results: Sequence[PairResult]) -> bool:
    """Tell whether all files are there and the table says the same already."""
    if not all(path.exists() for path in (layout.report, layout.costs, layout.results_csv)):
        return False
    return layout.results_csv.read_text(encoding="utf-8") == results_table(results)


def stage_costs(history: History, jobs: Iterable[Job]) -> tuple[StageCost, ...]:
    """Return the seconds and the highest memory of each stage, added up over jobs."""
    listed, costs = list(jobs), []
    for stage in STAGES:
        records = [history.of(job.key) for job in listed if job.stage == stage and history.of(job.key).tasks]
        if records:
            seconds = sum(record.seconds for record in records)
            costs.append(StageCost(stage, seconds, max(record.peak_mb for record in records)))
    return tuple(costs)


def _comparison(account: StageAccount) -> StageComparison:
    predicted, taken = account.done, account.taken
    return StageComparison(
        stage=predicted.stage,
        done=predicted.jobs,
        planned=account.planned,
        cpu_s=Compared(predicted.cpu_s, taken.cpu_s) if predicted.device == "cpu" else None,
        worker_s=taken.worker_s,
        memory_mb=Compared(predicted.memory_mb, taken.peak_mb),
        held_mb=taken.held_mb,
        written_mb=Compared(1000 * predicted.disk_gb, taken.written_mb),
        dropped_s=account.dropped_s,
    )


def _row(layout: Layout, result: PairResult, pair: Pair | None) -> BatchRow:
    if pair is None:
        return BatchRow(result.pair_id, result.verdict or Verdict.ERROR, result.reasons)
    files = layout.pair(result.pair_id)
    thumbnail = read_arrays(files.thumbnail)["pixels"] if files.thumbnail.exists() else None
    return BatchRow(
        pair_id=result.pair_id,
        verdict=result.verdict or Verdict.ERROR,
        reasons=result.reasons,
        path=files.report.relative_to(layout.root).as_posix() if files.report.exists() else "",
        metrics=result.metrics,
        seconds=result.seconds,
        peak_mb=result.peak_mb,
        thumbnail=thumbnail,
        modalities=f"{pair.fixed.modality} / {pair.moving.modality}",
        model="none" if pair.model is None else pair.model.card.name,
    )
