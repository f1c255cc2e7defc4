"""A Dask cluster of processes on this machine, for as long as its executor lives."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import psutil
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.system import MEMORY_LIMIT

from comir_batch.core.task import Resource
from comir_batch.execution.allotment import Allotment, allotment
from comir_batch.execution.dask_executor import DaskExecutor
from comir_batch.execution.security import make_certificate
from comir_batch.execution.settings import DASK_SETTINGS, THREAD_COUNTS, quieten
from comir_batch.execution.worker_setup import WorkerSetup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.execution.stop import StopRequest

_LOOPBACK = "127.0.0.1"
_COMFORTABLE = 5 * 2**30  # bytes; what registration needs with the default settings, and some more


def local_executor(
    config: ExecutionConfig, *, stop: StopRequest | None = None, logs: Path | None = None
) -> DaskExecutor:
    """Start worker processes on this machine and return the executor that owns them.

    ``config.workers`` processes (0: one for each core and 5 GiB of memory that this process may use) take ``cpu``
    tasks, and one more takes ``gpu`` tasks where ``config.device`` is ``cuda``. Scheduler, workers and dashboard listen
    on 127.0.0.1 only, and but for the dashboard they talk by a certificate of this executor: others of the same machine
    could run code otherwise.

    Parameters
    ----------
    config : ExecutionConfig
        Number of workers, memory of each, dashboard, device (already resolved: ``auto`` counts as ``cpu``).
    stop : StopRequest or None
        Handed to the executor.
    logs : Path or None
        Folder for the workers' logs; None for a temporary one that goes with the executor.
    """
    quieten()
    _start_tracker()
    scratch = Path(tempfile.mkdtemp(prefix="comir-batch-"))
    folder = logs or scratch
    folder.mkdir(parents=True, exist_ok=True)
    with dask.config.set(DASK_SETTINGS):
        security = make_certificate(scratch / "tls")
        secured = {"protocol": "tls://", "security": security}
        cluster = SpecCluster(
            workers=_workers(config, scratch, secured),
            scheduler=_scheduler(config, secured),
            security=security,
            silence_logs=logging.CRITICAL,
        )
        client = Client(cluster, set_as_default=False, security=security)
    client.register_plugin(WorkerSetup(folder))

    def close() -> None:
        _kill_workers(cluster)
        cluster.close()
        shutil.rmtree(scratch, ignore_errors=True)

    return DaskExecutor(client, stop=stop, on_close=close, dashboard=bool(config.dashboard), notes=folder)


def _start_tracker() -> None:
    """Start multiprocessing's tracker so that it outlives the terminal; it would be told of its end and complain."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()  # a child inherits what is blocked
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _scheduler(config: ExecutionConfig, secured: Mapping[str, Any]) -> dict[str, Any]:
    options = {
        **secured,
        "host": _LOOPBACK,
        "port": 0,
        "dashboard": bool(config.dashboard),
        # Without a dashboard the scheduler still serves its health page, somewhere.
        "dashboard_address": config.dashboard or f"{_LOOPBACK}:0",
    }
    return {"cls": Scheduler, "options": options}


def _workers(config: ExecutionConfig, scratch: Path, secured: Mapping[str, Any]) -> dict[str, Any]:
    share = allotment(Allotment(CPU_COUNT, MEMORY_LIMIT), os.environ)
    kinds = [Resource.CPU] * (config.workers or _default_workers(share)) + [Resource.GPU] * (config.device == "cuda")
    memory = round(config.memory_gb * 2**30) or share.memory // len(kinds)
    options = {
        **secured,
        "nthreads": 1,
        "memory_limit": memory,
        "host": _LOOPBACK,
        "dashboard": False,
        "dashboard_address": f"{_LOOPBACK}:0",
        "local_directory": str(scratch),
        "silence_logs": logging.WARNING,
    }
    return {
        f"{kind}-{number}": {
            "cls": Nanny,
            "options": {**options, "resources": {kind.value: 1}, "env": _environment(kind)},
        }
        for number, kind in enumerate(kinds)
    }


def _default_workers(share: Allotment) -> int:
    return max(1, min(share.cores, share.memory // _COMFORTABLE))


def _environment(kind: Resource) -> dict[str, str]:
    threads = dict.fromkeys(THREAD_COUNTS, "1")
    return threads if kind is Resource.GPU else {**threads, "CUDA_VISIBLE_DEVICES": ""}


def _kill_workers(cluster: SpecCluster) -> None:
    """End the worker processes at once; nothing that they still do is wanted, and files are written atomically."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        with suppress(psutil.Error, AttributeError):
            process = psutil.Process(nanny.process.pid)
            for each in [*process.children(recursive=True), process]:
                each.kill()
