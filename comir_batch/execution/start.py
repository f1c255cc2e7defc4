"""Starting the executor that a config asks for."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.errors import ConfigError
from comir_batch.execution.serial import SerialExecutor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.profile import Profile
    from comir_batch.core.task import Executor
    from comir_batch.execution.files import ClusterFiles
    from comir_batch.execution.stop import StopRequest


@dataclass(frozen=True, slots=True)
class ExecutorRequest:
    """What an executor is started for.

    Attributes
    ----------
    config : ExecutionConfig
        The device is resolved already.
    files : ClusterFiles
        Folders for the workers' logs and all that a driver and its workers share.
    profile : Profile or None
        Of the site, where the executor needs one.
    binds : tuple of Path
        Folders that tasks read.
    say : callable
        Takes sentences for the user.
    """

    config: ExecutionConfig
    files: ClusterFiles
    profile: Profile | None
    binds: tuple[Path, ...]
    say: Callable[[str], None]


def start_executor(request: ExecutorRequest, stop: StopRequest) -> Executor:
    """Return the executor that ``config.executor`` names, ready to run; the caller closes it.

    Parameters
    ----------
    request : ExecutorRequest
        Which one, and what it needs.
    stop : StopRequest
        What the executor looks at between tasks.

    Raises
    ------
    ConfigError
        If it cannot be had here.
    NoWorkersError
        If a cluster refuses its jobs, or a scheduler does not answer.
    """
    match request.config.executor:
        case "serial":
            return SerialExecutor(stop)
        case "local":
            from comir_batch.execution.local import local_executor  # noqa: PLC0415  Dask takes a second to load

            return local_executor(request.config, stop=stop, logs=request.files.logs)
        case "slurm":
            return _slurm(request, stop)
        case "attach":
            from comir_batch.execution.attach import attached_executor  # noqa: PLC0415

            patience = {} if request.profile is None else {"start_timeout_s": request.profile.start_timeout_s}
            return attached_executor(request.config, stop=stop, files=request.files, say=request.say, **patience)


def job_name(root: Path) -> str:
    """Return the name of all jobs of a run, which follows from its directory: so its jobs are found again."""
    return "cb-" + hashlib.sha256(str(root).encode()).hexdigest()[:8]


def _slurm(request: ExecutorRequest, stop: StopRequest) -> Executor:
    missing = [name for name in ("dask_jobqueue", "cryptography") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not installed here: run pip install 'comir-batch[driver]'")
    from comir_batch.execution.slurm.executor import slurm_executor  # noqa: PLC0415
    from comir_batch.execution.slurm.script import Site  # noqa: PLC0415

    assert request.profile is not None  # noqa: S101  the pipeline has seen to it
    site = Site(request.profile, request.files, request.binds)
    name = job_name(request.files.root)
    return slurm_executor(request.config, site, stop=stop, say=request.say, job_name=name)
