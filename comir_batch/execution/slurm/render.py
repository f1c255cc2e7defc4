"""Job scripts that stand alone: a run for sites where sbatch cannot be called from where this program is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from comir_batch.core.profile import walltime_s
from comir_batch.core.task import Resource
from comir_batch.execution.slurm.batch import Batch, directives
from comir_batch.execution.slurm.script import interpreter, lifetime_s, prologue, shebang, worker_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.core.profile import Jobs
    from comir_batch.execution.slurm.script import Site

# What the driver tells of itself; a container that starts with a clean environment would not know it.
_TOLD = ("SLURM_JOB_ID", "SLURM_SUBMIT_HOST")


@dataclass(frozen=True, slots=True)
class Rendering:
    """A run to render.

    Attributes
    ----------
    site : Site
        Profile, files and binds of the run.
    job_name : str
        Of all jobs.
    run : tuple of str
        Words after ``comir-batch run``.
    dashboard : str
        Address of the dashboard; empty for none.
    environment : tuple of (str, str)
        Variables that the driver must know, and their values.
    """

    site: Site
    job_name: str
    run: tuple[str, ...]
    dashboard: str
    environment: tuple[tuple[str, str], ...] = ()


class _Script(Template):
    """A template whose gaps look like nothing in a shell script."""

    delimiter = "@"


def render(rendering: Rendering) -> dict[str, str]:
    """Return the text of each script by its file name.

    Raises
    ------
    ConfigError
        If a path cannot be named in a directive or bound into a container.
    """
    kinds = list(rendering.site.profile.kinds())
    scripts = {"driver.sbatch": _driver(rendering)}
    scripts |= {f"{kind}-worker.sbatch": _workers(rendering, kind) for kind in kinds}
    filled = {"kinds": " ".join(kinds)}
    return scripts | {name: _filled(name, rendering, filled) for name in ("submit.sh", "cancel.sh")}


def _driver(rendering: Rendering) -> str:
    profile, files = rendering.site.profile, rendering.site.files
    asked = {key: value for key, value in profile.driver if value or key == "directives"}
    jobs = profile.cpu.model_copy(update={"cpus": 1, "gres": "", "max_memory_gb": 0, **asked})
    where = {"--interface": profile.driver_interface, "--host": profile.driver_host, "--port": profile.driver_port}
    options = [word for name, value in where.items() if value for word in (name, str(value))]
    options += ["--scheduler-file", str(files.scheduler), "--dashboard", rendering.dashboard]
    told = [f"export {name}={shlex.quote(value)}" for name, value in rendering.environment]
    if profile.image:
        names = [*_TOLD, *(name for name, _ in rendering.environment)]
        told += [f'export APPTAINERENV_{name}="${name}"' for name in names]
    filled = {
        "directives": _directives(
            rendering, "driver", jobs, "-%j.log", f"--signal=B:USR1@{min(300, walltime_s(jobs.walltime) // 4)}"
        ),
        "prologue": "\n".join([*prologue(profile), *told]),
        "python": interpreter(rendering.site, Resource.CPU),
        "scheduler_options": shlex.join(options),
        "run_options": shlex.join(rendering.run),
    }
    return _filled("driver.sbatch", rendering, filled)


def _workers(rendering: Rendering, kind: Resource) -> str:
    profile, files = rendering.site.profile, rendering.site.files
    jobs = profile.kinds()[kind]
    options = {
        "--scheduler-file": str(files.scheduler),
        "--tls": str(files.tls),
        "--memory-limit": f"{jobs.memory_mb}MiB",
        "--death-timeout": f"{profile.start_timeout_s:g}",
    }
    words = [shlex.quote(word) for option in options.items() for word in option]
    # Long after the worker's lifetime; SLURM may send it up to a minute early.
    notice = f"--signal=B:USR1@{min(120, walltime_s(jobs.walltime) // 8)}"
    filled = {
        "directives": _directives(rendering, kind, jobs, "-%A_%a.log", notice, f"--array=1-{jobs.jobs}"),
        "prologue": "\n".join(prologue(profile)),
        "kind": kind.value,
        "jobs": str(jobs.jobs),
        "lifetime": str(lifetime_s(jobs)),
        "python": interpreter(rendering.site, kind),
        "worker_options": " ".join([*words, *worker_options(profile, kind)]),
    }
    return _filled("worker.sbatch", rendering, filled)


def _directives(rendering: Rendering, kind: str, jobs: Jobs, pattern: str, *options: str) -> str:
    files = rendering.site.files
    options = ("--requeue", *options)
    batch = Batch(rendering.job_name, jobs, files.root, files.logs / kind, pattern, options)
    return directives(batch, rendering.site.profile)


def _filled(name: str, rendering: Rendering, values: Mapping[str, str]) -> str:
    site = rendering.site
    common = {
        "shebang": shebang(site.profile),
        "title": str(site.files.root),
        "cluster": shlex.quote(str(site.files.folder)),
        "logs": shlex.quote(str(site.files.logs)),
        "job_name": rendering.job_name,
    }
    template = resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
    return _Script(template).substitute(common | dict(values))
