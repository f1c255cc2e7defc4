"""The account of a run: what each stage was predicted to take, and what it took, added up over all its starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.pipeline import cost
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.plan import StagePlan, stage_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comir_batch.pipeline.job import Device, Job
    from comir_batch.pipeline.records import History, JobRecord


class Taken(NamedTuple):
    """What the finished jobs of a stage took.

    Attributes
    ----------
    cpu_s : float
        CPU time of their tasks, child processes included.
    worker_s : float
        Wall time of their tasks, added up.
    wall_s : float
        For how long at least one of them ran.
    peak_mb : float
        Most memory in MB (10^6 bytes) of a worker during a task.
    held_mb : float
        What of it the worker had before that task.
    written_mb : float
        Size of what they left.
    """

    cpu_s: float
    worker_s: float
    wall_s: float
    peak_mb: float
    held_mb: float
    written_mb: float


@dataclass(frozen=True, slots=True)
class StageAccount:
    """One stage over all pairs of a run.

    Attributes
    ----------
    planned : int
        Number of its jobs: slides or pairs.
    done : StagePlan
        What was predicted of those that are done and were measured.
    taken : Taken
        What these took, in whichever starts of the run.
    dropped_s : float
        CPU time of finished tasks that are of no use: of jobs that were begun anew, or are not done.
    """

    planned: int
    done: StagePlan
    taken: Taken
    dropped_s: float


def stage_accounts(jobs: Iterable[Job], history: History, device: Device) -> tuple[StageAccount, ...]:
    """Return the account of each stage of which anything is done, where networks run on a device."""
    listed = list(jobs)
    accounts = (_account(stage, [job for job in listed if job.stage == stage], history, device) for stage in STAGES)
    return tuple(account for account in accounts if account.done.jobs)


def account_json(accounts: Iterable[StageAccount], wall_s: float) -> dict[str, Any]:
    """Return costs.json's content; seconds, MB (10^6 bytes) and GB."""
    return {
        "format": cost.FORMAT,
        "revision": cost.REVISION,
        "machine": cost.MACHINE,
        "wall_s": round(wall_s, 1),
        "stages": [_stage_json(account) for account in accounts],
    }


def _account(stage: str, jobs: Sequence[Job], history: History, device: Device) -> StageAccount:
    records = [history.of(job.key) for job in jobs]
    done = [job for job, record in zip(jobs, records, strict=True) if record.measured]
    dropped = sum(record.dropped_s + (0.0 if record.done else record.cpu_seconds) for record in records)
    taken = _taken([record for record in records if record.measured])
    return StageAccount(len(jobs), stage_plan(stage, done, device), taken, dropped)


def _taken(records: Sequence[JobRecord]) -> Taken:
    lines = [line for record in records for line in record.tasks.values()]
    most = max(lines, key=lambda line: int(line["peak_mb"]), default={"peak_mb": 0, "held_mb": 0})
    return Taken(
        cpu_s=sum(record.cpu_seconds for record in records),
        worker_s=sum(record.seconds for record in records),
        wall_s=_covered((line["at"] - line["seconds"], line["at"]) for line in lines),
        peak_mb=most["peak_mb"],
        held_mb=most["held_mb"],
        written_mb=sum(record.written_mb or 0.0 for record in records),
    )


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of what at least one span covers."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return length


def _stage_json(account: StageAccount) -> dict[str, Any]:
    predicted = asdict(account.done)
    head = {key: predicted.pop(key) for key in ("stage", "device", "resource", "jobs")}
    taken = {key: round(value, 3) for key, value in account.taken._asdict().items()}
    return {
        **head,
        "planned": account.planned,
        "predicted": predicted,
        "taken": taken,
        "dropped_s": round(account.dropped_s, 3),
    }
