"""What a scheduler tells of what happens, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from comir_batch.core.task import Outcome, Task
    from comir_batch.pipeline.job import Job


class Journal(Protocol):
    """Whom the scheduler tells what happens."""

    def job_started(self, job: Job, *, fresh: bool) -> None:
        """Take notice that a job begins; `fresh` unless finished tasks of an earlier run count."""

    def tasks_planned(self, job: Job, count: int) -> None:
        """Take notice that a phase adds tasks."""

    def task_done(self, job: Job, task: Task, outcome: Outcome) -> None:
        """Take notice of a finished task."""

    def task_retried(self, job: Job, outcome: Outcome) -> None:
        """Take notice that a task's worker was lost and it is tried again."""

    def job_done(self, job: Job, *, clean: bool) -> None:
        """Take notice; `clean` is False where a job that it merely waited for had failed, so that it must be redone."""

    def job_skipped(self, job: Job, reason: str) -> None:
        """Take notice that a job is not needed."""

    def job_failed(self, job: Job, message: str, detail: str) -> None:
        """Take notice that a job failed; `detail` is for the log."""

    def pair_finished(self, pair: str) -> None:
        """Take notice that nothing more will happen to a pair."""
