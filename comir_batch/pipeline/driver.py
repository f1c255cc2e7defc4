"""The driver's ears: records what happens, tells the subscribers, keeps account of each pair, and clears up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from comir_batch.core.events import Event, EventBus, Kind
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.by_hand import read_by_hand, standing
from comir_batch.pipeline.files import remove_tree, size_mb, wait_until_seen, write_json, write_text
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.layout import JudgeFiles
from comir_batch.pipeline.results import pair_result

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from comir_batch.core.task import Outcome, Task
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.records import Records
    from comir_batch.pipeline.results import PairResult


class Driver:
    """The scheduler's journal.

    Parameters
    ----------
    layout : Layout
        Of the run directory.
    records : Records
        Open for writing.
    bus : EventBus
        Whom to tell.
    jobs : mapping of str to Job
        All jobs of the run.
    target : str
        Stage that the run goes up to; a pair's verdict is the one that this run reached.
    keep_work : bool
        Whether bulky intermediate results stay.
    """

    def __init__(
        self, layout: Layout, records: Records, bus: EventBus, jobs: Mapping[str, Job], *, target: str, keep_work: bool
    ) -> None:
        self._layout, self._records, self._bus, self._jobs = layout, records, bus, jobs
        self._target, self._keep_work = STAGES.index(target), keep_work
        self._errors: dict[str, str] = {}
        self._finished: set[str] = set()

    def job_started(self, job: Job, *, fresh: bool) -> None:
        """Note the start; what an abandoned attempt left is removed first."""
        if fresh:
            remove_tree(self._layout.job(job.key))
        self._layout.job(job.key).mkdir(parents=True, exist_ok=True)
        self._records.started(job, fresh=fresh)
        self._tell(Kind.JOB_STARTED, job, fresh=fresh)

    def tasks_planned(self, job: Job, count: int) -> None:
        """Tell how many tasks a phase adds."""
        self._tell(Kind.TASKS_PLANNED, job, tasks=count)

    def task_done(self, job: Job, task: Task, outcome: Outcome) -> None:
        """Record a finished task, once what it wrote can be seen here: what follows reads it."""
        for path in task.writes or job.outputs:
            wait_until_seen(path)
        self._records.task_done(job, outcome)
        cost = {"seconds": outcome.seconds, "peak_mb": outcome.peak_mb, "worker": outcome.worker}
        self._tell(Kind.TASK_DONE, job, task=outcome.key, **cost)

    def task_retried(self, job: Job, outcome: Outcome) -> None:
        """Tell that a task's worker was lost and it is tried again."""
        self._tell(Kind.TASK_RETRIED, job, task=outcome.key, message=outcome.error)

    def job_done(self, job: Job, *, clean: bool) -> None:
        """Record a finished job, unless it must be redone because others had failed."""
        if clean:
            self._records.job_done(job, size_mb((self._layout.job(job.key), *job.published)))
        self._tell(Kind.JOB_DONE, job, seconds=self._records.history.of(job.key).seconds)

    def job_skipped(self, job: Job, reason: str) -> None:
        """Tell that a job is not needed."""
        self._tell(Kind.JOB_SKIPPED, job, reason=reason)

    def job_failed(self, job: Job, message: str, detail: str) -> None:
        """Record a failure; the first one of a pair is its reason."""
        struck = [pair for pair in job.pairs if pair not in self._errors]
        self._errors |= dict.fromkeys(struck, f"{job.stage}: {message}")
        publishing = struck if self._publishes else []
        self._records.job_failed(job, message, [self._layout.pair(pair).verdict for pair in publishing])
        for pair in publishing:
            self._publish_error(pair, detail)
        self._tell(Kind.JOB_FAILED, job, message=message)

    def pair_finished(self, pair: str) -> None:
        """Tell the verdict, and remove what nothing needs any more."""
        self._finished.add(pair)
        if not self._keep_work:
            self._clear_up(pair)
        result = self.result(pair)
        verdict = "" if result.verdict is None else result.verdict.value
        data = {"verdict": verdict, "reasons": result.reasons}
        self._bus.publish(Event(Kind.PAIR_DONE, pairs=(pair,), data=data))

    def result(self, pair: str) -> PairResult:
        """Return a pair's row of results.csv; without a verdict until this run's settings have given one."""
        jobs = [job for job in self._jobs.values() if pair in job.pairs and job.depth <= self._target]
        records = [self._records.history.of(job.key) for job in jobs]
        result = pair_result(pair, self._verdict_file(pair, jobs), records, self._errors.get(pair, ""))
        decision = standing(read_by_hand(self._layout), pair, self._layout.pair(pair).transform_json)
        return result if result.verdict in {None, Verdict.ERROR} else replace(result, decision=decision)

    @property
    def _publishes(self) -> bool:
        """Whether the run goes as far as the published files; a single earlier stage leaves them alone."""
        return self._target >= STAGES.index("export")

    def _verdict_file(self, pair: str, jobs: list[Job]) -> Path | None:
        """Return the verdict that the last job to write one has written; before it did, one there is of the past."""
        last = next((job for job in jobs if job.stage == ("export" if self._publishes else "judge")), None)
        if last is None or not self._records.history.is_done(last, self._layout.root):
            return None
        return self._layout.pair(pair).verdict if self._publishes else JudgeFiles(self._layout.job(last.key)).verdict

    def _publish_error(self, pair: str, detail: str) -> None:
        files = self._layout.pair(pair)
        verdict = {"verdict": Verdict.ERROR.value, "reasons": [self._errors[pair]], "metrics": {}}
        write_json(files.verdict, verdict)
        write_text(files.logs / "error.log", f"{self._errors[pair]}\n{detail}")

    def _clear_up(self, pair: str) -> None:
        for job in self._jobs.values():
            if job.bulky is None or pair not in job.pairs:
                continue
            if all(other in self._finished and other not in self._errors for other in job.pairs):
                remove_tree(job.bulky)

    def _tell(self, kind: Kind, job: Job, **data: object) -> None:
        self._bus.publish(Event(kind, job.stage, job.pairs, job.key, data))
