"""The job script of a worker: dask-jobqueue writes it, with our worker as its command."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

import comir_batch
from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import GpuJobs, walltime_s
from comir_batch.core.task import Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.core.profile import Jobs, Profile
    from comir_batch.execution.files import ClusterFiles

_LONGEST_DRAIN_S = 900


@dataclass(frozen=True, slots=True)
class Site:
    """What the jobs of a run have in common.

    Attributes
    ----------
    profile : Profile
        Of the cluster.
    files : ClusterFiles
        Of the run.
    binds : tuple of Path
        Folders that a container must see: those of slides, models and the run.
    """

    profile: Profile
    files: ClusterFiles
    binds: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A worker that is to run as a job.

    Attributes
    ----------
    name : str
        Of the worker; unique.
    job_name : str
        Of the job, by which the queue is asked for all jobs of a run.
    kind : Resource
        Of the tasks that it takes.
    memory_mb : int
        Of the job, in MiB.
    scheduler : str
        Address of the Dask scheduler.
    exclude : tuple of str
        Nodes to keep away from.
    """

    name: str
    job_name: str
    kind: Resource
    memory_mb: int
    scheduler: str
    exclude: tuple[str, ...] = ()


def job_script(order: Order, site: Site) -> str:
    """Return the text of a worker's job script.

    Raises
    ------
    ConfigError
        If a path cannot be bound into a container.
    """
    profile, jobs = site.profile, site.profile.kinds()[order.kind]
    job = _slurm_job()(
        scheduler=order.scheduler,
        name=order.name,
        cores=jobs.cpus,
        memory=f"{order.memory_mb}MiB",
        processes=1,
        job_mem=f"{order.memory_mb}M",
        queue=jobs.partition or None,
        account=profile.account or None,
        walltime=jobs.walltime,
        job_name=order.job_name,
        shebang=shebang(profile),
        job_directives_skip=[] if profile.ask_memory else ["--mem="],
        worker_command="comir_batch.execution.worker",
        python=f"exec {interpreter(site, order.kind)}",
        death_timeout=round(profile.start_timeout_s),
        worker_extra_args=[*_worker_options(order, site), *worker_options(profile, order.kind)],
        job_script_prologue=prologue(profile),
        job_extra_directives=_directives(order, site),
    )
    return str(job.job_script())


def worker_options(profile: Profile, kind: Resource) -> list[str]:
    """Return the options of a worker that follow from the profile, quoted for a shell."""
    jobs = profile.kinds()[kind]
    options: dict[str, object] = {
        "--kind": kind.value,
        "--nthreads": slots(jobs),
        "--threads": jobs.cpus if kind is profile.network_resource else 1,
        "--device": profile.device if kind is profile.network_resource else "cpu",
        "--interface": profile.interface,
        "--comir-batch-version": comir_batch.__version__,
        "--distributed-version": version("distributed"),
    }
    return [shlex.quote(str(part)) for name, value in options.items() if value for part in (name, value)]


def lifetime_s(jobs: Jobs) -> int:
    """Return for how many seconds a worker is given tasks, so that the last of them ends before the job's walltime."""
    walltime = walltime_s(jobs.walltime)
    return walltime - min(_LONGEST_DRAIN_S, walltime // 4)


def slots(jobs: Jobs) -> int:
    """Return how many tasks a worker takes at once."""
    return jobs.slots if isinstance(jobs, GpuJobs) else 1


def shebang(profile: Profile) -> str:
    """Return the first line of a script; the command `module` is a function that only login shells have."""
    return "#!/bin/bash -l" if profile.modules else "#!/bin/sh"


def prologue(profile: Profile) -> list[str]:
    """Return the lines of shell that come before a worker."""
    lines = [f"module load {shlex.quote(module)}" for module in profile.modules]
    lines += profile.prologue
    if profile.scratch:
        lines.append(f'export TMPDIR="{profile.scratch}"')
    if profile.image:  # the container starts with a clean environment, or the host's would leak into it
        lines.append(
            '[ -z "${CUDA_VISIBLE_DEVICES+x}" ] || export APPTAINERENV_CUDA_VISIBLE_DEVICES="$CUDA_VISIBLE_DEVICES"'
        )
    if profile.image and profile.scratch:
        lines.append('export APPTAINERENV_TMPDIR="$TMPDIR"')
    return lines


def interpreter(site: Site, kind: Resource) -> str:
    """Return the command that starts Python on a compute node, in the container if there is one."""
    profile = site.profile
    if not profile.image:
        return shlex.quote(profile.python or sys.executable)
    nv = ["--nv"] if kind is Resource.GPU and profile.device == "cuda" else []
    parts = [profile.apptainer, "exec", "--cleanenv", *nv, *bind_options(site), "--pwd", str(site.files.root)]
    scratch = ' --bind "$TMPDIR"' if profile.scratch else ""
    return f"{shlex.join(parts)}{scratch} {shlex.quote(profile.image)} python3"


def bind_options(site: Site) -> list[str]:
    """Return Apptainer's options for the folders that a container must see.

    Raises
    ------
    ConfigError
        If a path has a colon or comma, which Apptainer's syntax cannot express.
    """
    folders = _outermost([str(site.files.root), *map(str, site.binds), *site.profile.binds])
    for folder in folders:
        if ":" in folder or "," in folder:
            raise ConfigError(f"{folder!r} cannot be bound into a container: its name has a colon or comma; rename it")
    return [part for folder in folders for part in ("--bind", folder)]


def _outermost(folders: Sequence[str]) -> list[str]:
    """Return the folders that lie in no other of them, symbolic links followed as well as kept."""
    both = dict.fromkeys(path for folder in folders for path in _paths(folder))
    return [a for a in both if not any(b != a and os.path.commonpath([a, b]) == b for b in both)]


def _paths(folder: str) -> tuple[str, str]:
    path = Path(folder).expanduser()
    return str(path.absolute()), str(path.resolve())


def _worker_options(order: Order, site: Site) -> list[str]:
    files = site.files
    options = ["--tls", str(files.tls), "--farewell", str(files.farewell(order.name))]
    # dask-jobqueue rounds what it says of the memory
    options += ["--memory-limit", f"{order.memory_mb}MiB"]
    options += ["--lifetime", str(lifetime_s(site.profile.kinds()[order.kind]))]
    return [shlex.quote(option) for option in options]


def _directives(order: Order, site: Site) -> list[str]:
    jobs, files = site.profile.kinds()[order.kind], site.files
    named = {
        "--qos": jobs.qos,
        "--constraint": jobs.constraint,
        "--gres": jobs.gres,
        "--exclude": ",".join(order.exclude),
    }
    return [
        f"--output={quoted(literal(files.log(order.name)))}",
        f"--chdir={quoted(files.root)}",
        # The driver replaces lost workers itself; a requeued job would come back under the name of the old one.
        "--no-requeue",
        "--open-mode=append",
        *(f"{name}={value}" for name, value in named.items() if value),
        *jobs.directives,
    ]


def literal(path: Path) -> str:
    """Return a path as the patterns of log files have it, where a percent sign means something."""
    return str(path).replace("%", "%%")


def quoted(path: str | Path) -> str:
    """Return a path as a directive of sbatch takes it.

    Raises
    ------
    ConfigError
        If no directive can name it.
    """
    text = str(path)
    if any(character in text for character in '"\\\n\r'):
        raise ConfigError(f"{text!r} has a quote, backslash or line break, which a job script cannot name; rename it")
    return f'"{text}"'


@cache
def _slurm_job() -> Any:
    """Import dask-jobqueue, which is not modest: it takes the process's signals and writes to the user's home.

    It replaces the handler of SIGINT by one that exits, and copies a file of settings to Dask's configuration folder.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ensure_file = dask.config.ensure_file
    dask.config.ensure_file = lambda *_args, **_options: None
    try:
        from dask_jobqueue.slurm import SLURMJob  # noqa: PLC0415
    finally:
        dask.config.ensure_file = ensure_file
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return SLURMJob
