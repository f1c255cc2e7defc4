"""Settings of Dask that scheduler, workers and driver share."""

from __future__ import annotations

import logging
from typing import Any

DASK_SETTINGS: dict[str, Any] = {
    # The first loss of a worker comes back as an outcome; the pipeline decides whether its task runs again.
    "distributed.scheduler.allowed-failures": 0,
    # A task may hold the GIL for long; a worker that is silent is not dead.
    "distributed.scheduler.worker-ttl": "1 hour",
    "distributed.scheduler.work-stealing": False,
    # Workers start child processes, which daemons must not.
    "distributed.worker.daemon": False,
    # Tasks return small records, so there is nothing to spill; pausing would only hang them.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # The worker looks after its memory itself, its child processes' included.
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1 hour",
}
NETWORK_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which torch computes with several threads; nothing else that tasks call heeds them before its own."""
THREAD_COUNTS = (*NETWORK_THREADS, "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
_LOGGERS = ("distributed", "distributed.client", "bokeh", "tornado", "tornado.application")


def quieten() -> None:
    """Keep Dask's own messages off the terminal; what a user must know is told by events and errors."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
