"""Work whose tasks do as they are told; workers import it from here, where a profile's prologue points them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from comir_batch.core.task import Resource, Task
from comir_batch.pipeline.job import Estimate, Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.core.task import Outcome

PROLOGUE = (f"export PYTHONPATH='{Path(__file__).parent}'",)


def take(megabytes: int) -> dict[str, Any]:
    """Hold so much memory for a while; tell how much the worker had, and how many threads a library would take."""
    block = bytearray(b"x" * 2**20) * megabytes
    time.sleep(1.5)
    had = get_worker().memory_manager.memory_limit // 2**20
    return {"held_mb": len(block) // 2**20, "worker_mb": had, "threads": os.environ["OMP_NUM_THREADS"]}


def nap(seconds: float) -> str:
    """Take a while, and tell where."""
    time.sleep(seconds)
    return str(get_worker().name)


@dataclass(frozen=True, slots=True)
class Calls:
    """Work of one phase: a function called with each payload, with an estimate of memory that need not be true."""

    function: Callable[[Any], Any]
    payloads: tuple[Any, ...]
    memory_mb: int = 64
    resource: Resource = Resource.CPU

    def estimate(self) -> Estimate:
        """Return the estimate."""
        return Estimate(len(self.payloads), self.memory_mb)

    def phase(self, number: int, key: str) -> list[Task] | None:
        """Return a task for each payload."""
        tasks = [
            Task(f"{key}-{index}", self.function, payload, self.resource, self.memory_mb)
            for index, payload in enumerate(self.payloads)
        ]
        return tasks if number == 0 else None


@dataclass
class Notes:
    """A journal that keeps what each pair's tasks returned, what was tried again, and what failed."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    retried: dict[str, list[Outcome]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def task_done(self, job: Job, _task: Task, outcome: Outcome) -> None:
        """Keep what it returned."""
        self.values.setdefault(job.pairs[0], []).append(outcome.value)

    def task_retried(self, job: Job, outcome: Outcome) -> None:
        """Keep why."""
        self.retried.setdefault(job.pairs[0], []).append(outcome)

    def job_failed(self, job: Job, message: str, _detail: str) -> None:
        """Keep why."""
        self.failed[job.pairs[0]] = message

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Take notice of all else without a note."""
        if not name.startswith(("job_", "tasks_", "pair_")):
            raise AttributeError(name)
        return lambda *_arguments, **_options: None


def job(pair: str, work: Calls) -> Job:
    """Return the one job of a pair."""
    return Job("chunk", pair, work, work.resource, (pair,), ())
