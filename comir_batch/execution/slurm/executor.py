"""The executor whose workers are SLURM jobs: scheduler and client here, workers wherever SLURM puts them."""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Scheduler, SpecCluster

from comir_batch.core.errors import ConfigError
from comir_batch.execution.address import own_address
from comir_batch.execution.dask_executor import DaskExecutor
from comir_batch.execution.security import make_certificate, remove_certificate
from comir_batch.execution.settings import DASK_SETTINGS, quieten
from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.workforce import SlurmWorkforce

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.profile import Profile
    from comir_batch.execution.slurm.script import Site
    from comir_batch.execution.stop import StopRequest


_GRACE_S = 15.0


def slurm_executor(
    config: ExecutionConfig, site: Site, *, stop: StopRequest, say: Callable[[str], None], job_name: str
) -> DaskExecutor:
    """Start a scheduler in this process and return the executor that submits workers for it.

    Parameters
    ----------
    config : ExecutionConfig
        Dashboard and queue timeout.
    site : Site
        Profile, files and binds of the run's jobs.
    stop : StopRequest
        Handed to the executor.
    say : callable
        Takes sentences for the user, such as why jobs are waiting.
    job_name : str
        Of all jobs of the run.

    Raises
    ------
    ConfigError
        If SLURM's commands are not here, or the profile names an interface that is not.
    NoWorkersError
        If SLURM refuses the jobs.
    """
    commands.require()
    quieten()
    files = site.files
    for folder in (files.folder, files.logs):
        folder.mkdir(parents=True, exist_ok=True)
    where = _listen(site.profile)
    security = make_certificate(files.tls)
    with dask.config.set(DASK_SETTINGS):
        options = {**where, **_dashboard(config), "protocol": "tls://", "security": security}
        cluster = _started(options, site.profile)
        client = Client(cluster, set_as_default=False, security=security)

    def retire(addresses: list[str]) -> None:
        client.retire_workers(addresses, close_workers=True)

    workforce = SlurmWorkforce(
        site,
        cluster.scheduler_address,
        job_name,
        retire=retire,
        say=say,
        queue_timeout_s=config.queue_timeout_s,
    )

    def close() -> None:
        with ExitStack() as ending:  # from the last to the first, whatever goes wrong on the way
            ending.callback(remove_certificate, files.tls)
            ending.callback(workforce.close, 0.0 if stop.requested else _GRACE_S)
            ending.callback(cluster.close)  # the workers end with it
            ending.callback(workforce.cancel_waiting)

    executor = DaskExecutor(
        client, workforce, stop=stop, on_close=close, dashboard=bool(config.dashboard), notes=files.folder
    )
    try:
        workforce.preflight()
    except BaseException:
        executor.close()
        raise
    return executor


def _started(options: dict[str, Any], profile: Profile) -> SpecCluster:
    try:
        return SpecCluster(
            workers={},
            scheduler={"cls": Scheduler, "options": options},
            security=options["security"],
            silence_logs=logging.CRITICAL,
        )
    except (OSError, ValueError, RuntimeError) as error:
        where = profile.driver_interface or profile.driver_host or socket.gethostname()
        raise ConfigError(
            f"the driver cannot listen at {where}: {error}. Check driver_interface, driver_host and driver_port of the "
            "profile"
        ) from error


def _listen(profile: Profile) -> dict[str, Any]:
    if profile.driver_interface:
        return {"interface": profile.driver_interface, "port": profile.driver_port}
    return {"host": profile.driver_host or own_address(), "port": profile.driver_port}


def _dashboard(config: ExecutionConfig) -> dict[str, Any]:
    # Without a dashboard the scheduler still serves its health page, somewhere.
    return {"dashboard": bool(config.dashboard), "dashboard_address": config.dashboard or "127.0.0.1:0"}
