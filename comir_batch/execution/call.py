"""One task's call: what every executor runs, wherever it runs it."""

from __future__ import annotations

import re
import threading
import time
import traceback
from typing import TYPE_CHECKING

import psutil

from comir_batch.core.errors import ComirBatchError
from comir_batch.core.task import Outcome

if TYPE_CHECKING:
    from typing import Self

    from comir_batch.core.task import Task

_SAMPLE_EVERY_S = 0.2
_MIB = 2**20
# As told by the operating system, by Rust (zarrs) and by numpy's tofile; only the first comes with an errno.
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written")


def run_task(task: Task, worker: str = "") -> Outcome:
    """Call a task's function and return what became of it; never raises.

    Parameters
    ----------
    task : Task
        What to call.
    worker : str
        Name of the worker, for the outcome.

    Returns
    -------
    Outcome
        The function's value, or a one-line ``error``. The text of a `ComirBatchError` is the error as it stands; any
        other exception (MemoryError among them) is an "internal error" whose traceback stands in ``detail``.
    """
    start = time.perf_counter()
    value, error, detail = None, "", ""
    with PeakMemory() as memory:
        try:
            value = task.function(task.payload)
        except ComirBatchError as failure:
            error = _one_line(str(failure)) or type(failure).__name__
        except Exception as failure:  # noqa: BLE001  a task's crash is its pair's, never the worker's
            error = f"internal error: {_one_line(''.join(traceback.format_exception_only(failure)))}"
            detail = traceback.format_exc()
    seconds = time.perf_counter() - start
    return Outcome(
        task.key,
        value,
        error,
        detail,
        disk_full=bool(_DISK_FULL.search(error)),
        seconds=seconds,
        peak_mb=memory.peak_mb,
        worker=worker,
    )


class PeakMemory:
    """Highest resident memory of this process and its children while the block runs, sampled five times a second.

    Pages that processes share count once for each of them, as in the operating system's own figures.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @property
    def peak_mb(self) -> int:
        """Highest sum seen so far, in MiB."""
        return round(self._peak / _MIB)

    def __enter__(self) -> Self:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        processes = [self._process, *self._process.children(recursive=True)]
        self._peak = max(self._peak, sum(map(_resident, processes)))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended since it was listed
        return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())
