"""What each Dask worker process does before its first task."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin

if TYPE_CHECKING:
    from pathlib import Path


class WorkerSetup(WorkerPlugin):
    """Gives a worker process a log file of its own, and leaves the terminal to the driver.

    Whatever a worker or a library in it prints goes to ``worker-<name>.log``, so that nothing breaks the driver's
    progress display. A terminal tells all its processes of Ctrl-C and of its own end; workers ignore both, so that the
    driver can end in order.

    Parameters
    ----------
    logs : Path
        Folder for the logs; it must exist.
    """

    name = "comir-batch-worker-setup"

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    def setup(self, worker: Any) -> None:
        """Redirect the process's output and ignore SIGINT and SIGHUP; runs in the worker's main thread."""
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        log = os.open(self._logs / f"worker-{worker.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
