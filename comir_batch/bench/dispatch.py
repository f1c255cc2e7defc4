"""What a driver takes to send a task and to take in its outcome, on workers of this machine."""

from __future__ import annotations

import time
from typing import NamedTuple

from comir_batch.core.config import ExecutionConfig
from comir_batch.execution.local import local_executor
from comir_batch.execution.mapping import map_tasks

_WARM_UP = 50


class Dispatch(NamedTuple):
    """Milliseconds a task: by the clock, and of the driver's CPU, which holds the scheduler, too."""

    wall_ms: float
    driver_ms: float


def nothing(_number: int) -> None:
    """Do nothing; runs on a worker."""


def measure_dispatch(tasks: int, workers: int) -> Dispatch:
    """Run tasks that do nothing, each for itself as a run does."""
    executor = local_executor(ExecutionConfig(workers=workers))
    try:
        map_tasks(executor, nothing, range(_WARM_UP), stage="warm-up")
        began, cpu = time.perf_counter(), time.process_time()
        map_tasks(executor, nothing, range(tasks), stage="nothing")
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    finally:
        executor.close()
    return Dispatch(1000 * wall_s / tasks, 1000 * cpu_s / tasks)
