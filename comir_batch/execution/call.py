"""One task's call: what every executor runs, wherever it runs it."""

from __future__ import annotations

import re
import time
import traceback
from typing import TYPE_CHECKING

from comir_batch.core.errors import ComirBatchError, ShortOfMemoryError
from comir_batch.core.passing import passing_errno
from comir_batch.core.task import Outcome
from comir_batch.execution.cpu_time import CpuTime
from comir_batch.execution.memory import PeakMemory

if TYPE_CHECKING:
    from comir_batch.core.task import Task

# As told by the operating system, by Rust (zarrs) and by numpy's tofile; only the first comes with an errno.
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written")


def run_task(task: Task, worker: str = "", memory: PeakMemory | None = None, limit_mb: int = 0) -> Outcome:
    """Call a task's function and return what became of it; never raises.

    Parameters
    ----------
    task : Task
        What to call.
    worker : str
        Name of the worker, for the outcome.
    memory : PeakMemory or None
        Measures the memory; None for one without a limit.
    limit_mb : int
        Memory that the task has, for the outcome; 0 for no limit.

    Returns
    -------
    Outcome
        The function's value, or a one-line ``error``. The text of a `ComirBatchError` is the error as it stands; any
        other exception is an "internal error" whose traceback stands in ``detail``. Too little memory is a loss, and so
        is what may be gone at the next try (`core/passing.py`).
    """
    start, cpu = time.perf_counter(), CpuTime()
    value, error, detail, short, passing = None, "", "", False, False
    with memory or PeakMemory() as measured:
        try:
            value = task.function(task.payload)
        except (MemoryError, ShortOfMemoryError) as failure:
            error, short, detail = f"out of memory: {_one_line(str(failure))}", True, traceback.format_exc()
        except ComirBatchError as failure:
            error, passing = _one_line(str(failure)) or type(failure).__name__, bool(passing_errno(failure))
        except Exception as failure:  # noqa: BLE001  a task's crash is its pair's, never the worker's
            passing = bool(passing_errno(failure))
            kind = "reading or writing failed" if passing else "internal error"
            error = f"{kind}: {_one_line(''.join(traceback.format_exception_only(failure)))}"
            detail = traceback.format_exc()
    seconds = time.perf_counter() - start
    return Outcome(
        task.key,
        value,
        error,
        detail,
        lost=short or passing,
        out_of_memory=short,
        limit_mb=limit_mb if short else 0,
        disk_full=bool(_DISK_FULL.search(error)),
        seconds=seconds,
        cpu_seconds=cpu.seconds,
        peak_mb=measured.peak_mb,
        held_mb=measured.held_mb,
        worker=worker,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
