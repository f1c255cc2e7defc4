"""The scheduler: a pure state machine that decides which task is next.

It expands a job into tasks when the job's inputs exist, prefers the deepest stage, and works on a window of pairs.
"""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from comir_batch.core.errors import ComirBatchError, StoppedError
from comir_batch.pipeline.records import JobRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from comir_batch.core.task import Outcome, Resource, Task
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.journal import Journal


_BLAMELESS = 20  # losses that are not a task's fault; a walltime shorter than the task would go on for ever
_MORE_MEMORY = "; give workers more memory (execution.memory_gb; max_memory_gb of a profile) or use fewer"


class State(StrEnum):
    """Of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"

    @property
    def settled(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in {State.DONE, State.SKIPPED, State.FAILED}


@dataclass(slots=True)
class _Progress:
    job: Job
    record: JobRecord
    state: State
    resumable: bool
    phase: int = -1
    ready: deque[Task] = field(default_factory=deque)
    running: set[str] = field(default_factory=set)
    value: Any = None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A task on its way, and how often its worker was lost before: by its own fault, as far as is known, and not."""

    progress: _Progress
    task: Task
    losses: int = 0
    blameless: int = 0

    def again(self, outcome: Outcome, retries: int) -> _Sent | None:
        """Return what to send instead: more memory where the lack of it is known or likely; None after too many."""
        if outcome.blameless:
            return replace(self, blameless=self.blameless + 1) if self.blameless < _BLAMELESS else None
        more = replace(self, task=_with_more(self.task, outcome))
        if outcome.out_of_memory and outcome.limit_mb:
            # The executor refuses what no worker has memory for, so that asking for more comes to an end.
            had_most = 0 < outcome.most_mb <= max(self.task.memory_mb, outcome.limit_mb)
            return None if had_most else more
        if self.losses >= retries:
            return None
        return replace(more if outcome.out_of_memory or self.losses else self, losses=self.losses + 1)


def _with_more(task: Task, outcome: Outcome) -> Task:
    doubled = 2 * max(task.memory_mb, outcome.limit_mb)
    return replace(task, memory_mb=max(task.memory_mb, min(doubled, outcome.most_mb or doubled)))


class Scheduler:
    """Source of an executor's tasks.

    Parameters
    ----------
    jobs : mapping of str to Job
        All jobs that the target needs, by key, inputs included.
    done : collection of str
        Keys of jobs that need not run.
    records : mapping of str to JobRecord
        What earlier runs finished of the others; only for jobs whose folder still exists.
    pairs : sequence of str
        The pairs in the order of the manifest.
    journal : Journal
        Hears of everything.
    in_flight : int
        How many unfinished pairs are worked on at once.
    retries : int
        How often a task is tried again whose worker was lost.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        done: frozenset[str],
        records: Mapping[str, JobRecord],
        pairs: Sequence[str],
        journal: Journal,
        *,
        in_flight: int,
        retries: int,
    ) -> None:
        self._journal, self._in_flight, self._retries = journal, in_flight, retries
        self._jobs = {
            key: _progress(job, records.get(key), State.DONE if key in done else State.WAITING)
            for key, job in jobs.items()
        }
        self._of_pair: dict[str, list[_Progress]] = {pair: [] for pair in pairs}
        for progress in self._jobs.values():
            for pair in progress.job.pairs:
                self._of_pair[pair].append(progress)
        for members in self._of_pair.values():
            members.sort(key=lambda progress: progress.job.depth)
        self._unfinished = list(self._of_pair)
        self._sent: dict[str, _Sent] = {}
        self._advance()

    @property
    def finished(self) -> bool:
        """Whether every pair is finished."""
        return not self._unfinished

    def state(self, key: str) -> State:
        """Return the state of a job."""
        return self._jobs[key].state

    def open_jobs(self) -> list[Job]:
        """Return the jobs that may still run."""
        return [progress.job for progress in self._jobs.values() if not progress.state.settled]

    def next_task(self, resource: Resource) -> Task | None:
        """Return a task of the deepest stage of the first pairs, or None if none is ready."""
        for pair in self._unfinished[: self._in_flight]:
            for progress in reversed(self._of_pair[pair]):
                task = _take(progress, resource)
                if task is not None:
                    progress.running.add(task.key)
                    self._sent.setdefault(task.key, _Sent(progress, task))
                    return task
        return None

    def ready(self, resource: Resource) -> int:
        """Return how many tasks of the window wait for that kind of worker."""
        members = (member for pair in self._unfinished[: self._in_flight] for member in self._of_pair[pair])
        running = {member.job.key: member for member in members if member.state is State.RUNNING}
        return sum(task.resource == resource for member in running.values() for task in member.ready)

    def handle(self, outcome: Outcome) -> None:
        """Take what became of a task.

        Raises
        ------
        StoppedError
            If the disk is full: every other pair would fail of it too.
        """
        if outcome.disk_full:
            where = f"{outcome.error} (worker {outcome.worker})"
            message = f"stopped: no space is left on a disk, or no quota: {where}. Make room; the same command resumes"
            raise StoppedError(message)
        sent = self._sent.pop(outcome.key)
        progress = sent.progress
        progress.running.discard(outcome.key)
        if progress.state is not State.RUNNING:
            pass  # the job failed while this task was under way
        elif outcome.ok:
            self._journal.task_done(progress.job, sent.task, outcome)
            progress.value = outcome.value
            if not progress.ready and not progress.running:
                self._next_phase(progress)
        elif outcome.lost and (again := sent.again(outcome, self._retries)) is not None:
            self._journal.task_retried(progress.job, outcome)
            self._sent[outcome.key] = again
            progress.ready.append(again.task)
        else:
            self._fail(progress, outcome.error + (_MORE_MEMORY if outcome.out_of_memory else ""), outcome.detail)
        self._advance()

    def _advance(self) -> None:
        """Start, skip and fail jobs of the window until nothing changes any more."""
        before: list[State] | None = None
        while True:
            window = self._unfinished[: self._in_flight]
            members = [progress for pair in window for progress in self._of_pair[pair]]
            for progress in members:
                self._start_if_ready(progress)
            self._settle_pairs()
            after = [progress.state for progress in members]
            if window == self._unfinished[: self._in_flight] and after == before:
                return
            before = after

    def _start_if_ready(self, progress: _Progress) -> None:
        if progress.state is not State.WAITING:
            return
        inputs = [self._jobs[key] for key in progress.job.inputs]
        failed = next((other for other in inputs if other.state is State.FAILED), None)
        if failed is not None:
            self._fail(progress, f"{failed.job.stage} failed", "")
        elif all(self._jobs[key].state.settled for key in (*progress.job.inputs, *progress.job.settles)):
            if progress.job.gate and self._jobs[progress.job.gate].value["verdict"] == "reject":
                self._skip(progress, "the pair is rejected")
            else:
                self._start(progress)

    def _start(self, progress: _Progress) -> None:
        progress.state = State.RUNNING
        self._journal.job_started(progress.job, fresh=not progress.resumable)
        self._next_phase(progress)

    def _next_phase(self, progress: _Progress) -> None:
        while not progress.ready:
            progress.phase += 1
            try:
                tasks = progress.job.work.phase(progress.phase, progress.job.key)
            except ComirBatchError as error:
                self._fail(progress, str(error), "")
                return
            except Exception as error:  # noqa: BLE001  one damaged file must not end the batch
                self._fail(progress, f"internal error: {type(error).__name__}: {error}", traceback.format_exc())
                return
            if tasks is None:
                self._finish(progress)
                return
            finished = progress.record.tasks
            progress.ready.extend(task for task in tasks if task.key not in finished)
            for task in tasks:
                if task.key in finished:
                    progress.value = finished[task.key]["value"]
            self._journal.tasks_planned(progress.job, len(progress.ready))

    def _finish(self, progress: _Progress) -> None:
        progress.state = State.DONE
        clean = all(self._jobs[key].state is not State.FAILED for key in progress.job.settles)
        self._journal.job_done(progress.job, clean=clean)

    def _skip(self, progress: _Progress, reason: str) -> None:
        progress.state = State.SKIPPED
        self._journal.job_skipped(progress.job, reason)

    def _fail(self, progress: _Progress, message: str, detail: str) -> None:
        progress.state = State.FAILED
        progress.ready.clear()
        self._journal.job_failed(progress.job, message, detail)

    def _settle_pairs(self) -> None:
        for pair in self._unfinished[: self._in_flight]:
            members = self._of_pair[pair]
            if all(member.state.settled and not member.running for member in members):
                self._unfinished.remove(pair)
                self._journal.pair_finished(pair)


def _progress(job: Job, record: JobRecord | None, state: State) -> _Progress:
    resumable = record is not None and bool(record.tasks)
    record = record or JobRecord()
    return _Progress(job, record, state, resumable, value=record.value)


def _take(progress: _Progress, resource: Resource) -> Task | None:
    if progress.state is not State.RUNNING:
        return None
    for _ in range(len(progress.ready)):
        task = progress.ready.popleft()
        if task.resource == resource:
            return task
        progress.ready.append(task)
    return None
