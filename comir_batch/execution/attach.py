"""The executor of a Dask cluster that is there already, joined by a scheduler file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import dask
from distributed import Client
from distributed.security import Security

from comir_batch.core.errors import ConfigError, NoWorkersError
from comir_batch.core.profile import START_TIMEOUT_S
from comir_batch.execution.dask_executor import DaskExecutor
from comir_batch.execution.security import read_certificate
from comir_batch.execution.settings import DASK_SETTINGS, quieten
from comir_batch.execution.workforce import FixedWorkforce

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.execution.files import ClusterFiles
    from comir_batch.execution.stop import StopRequest

_CONNECT_S = 120.0


def attached_executor(
    config: ExecutionConfig,
    *,
    stop: StopRequest,
    files: ClusterFiles,
    say: Callable[[str], object],
    start_timeout_s: float = START_TIMEOUT_S,
) -> DaskExecutor:
    """Return the executor of the cluster whose scheduler wrote ``config.scheduler_file``.

    A folder ``tls`` beside the file holds the certificate, as `comir_batch.execution.scheduler` writes it; without one
    Dask's own configuration says whether and how connections are encrypted.

    Parameters
    ----------
    config : ExecutionConfig
        Scheduler file, and how long to wait for the scheduler and for workers.
    stop : StopRequest
        Handed to the executor.
    files : ClusterFiles
        Where workers leave notes.
    say : callable
        Takes sentences for the user.
    start_timeout_s : float
        How long to wait where workers are connected and none of them is comir-batch's.

    Raises
    ------
    ConfigError
        If no scheduler file was given.
    NoWorkersError
        If there is no such file in that time (two minutes where none is set), or the scheduler does not answer.
    """
    if not config.scheduler_file:
        raise ConfigError("the executor attach needs the scheduler's file: give --scheduler-file")
    quieten()
    files.folder.mkdir(parents=True, exist_ok=True)
    path = Path(config.scheduler_file)
    patience_s = config.queue_timeout_s or _CONNECT_S
    address = _address(path, patience_s, stop)
    tls = path.parent / "tls"
    security = read_certificate(tls) if tls.is_dir() else Security()
    try:
        with dask.config.set(DASK_SETTINGS):
            client = Client(address, set_as_default=False, security=security, timeout=patience_s)
    except (OSError, TimeoutError) as error:
        raise NoWorkersError(f"the scheduler at {address} does not answer: {error}. Is {path} an old one?") from error
    workforce = FixedWorkforce(
        config.queue_timeout_s or float("inf"),
        files.farewell,
        say,
        strangers=lambda: len(client.scheduler_info(n_workers=-1)["workers"]),
        start_timeout_s=start_timeout_s,
    )
    return DaskExecutor(client, workforce, stop=stop, notes=files.folder)


def _address(path: Path, patience_s: float, stop: StopRequest) -> str:
    """Wait for the file: the scheduler may be starting, or the file on its way through a network file system."""
    end = time.monotonic() + patience_s
    while True:
        stop.check()
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError) as error:
            if time.monotonic() > end:
                raise NoWorkersError(
                    f"no scheduler has written its address to {path} within {patience_s:g} s: {error}. Start "
                    "python -m comir_batch.execution.scheduler, or correct --scheduler-file"
                ) from error
        time.sleep(1.0)
