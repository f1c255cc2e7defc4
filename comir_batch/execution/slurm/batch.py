"""Plain job scripts, for what is no worker of a driver that runs: rendered runs, and looking around on a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.execution.slurm.script import literal, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.profile import Jobs, Profile


@dataclass(frozen=True, slots=True)
class Batch:
    """A job, or an array of them.

    Attributes
    ----------
    name : str
        Of the job.
    jobs : Jobs
        What it asks for.
    folder : Path
        Where it starts.
    log : Path
        What it prints goes to files that begin so.
    pattern : str
        With which they end, as sbatch has it.
    options : tuple of str
        Further options of sbatch.
    """

    name: str
    jobs: Jobs
    folder: Path
    log: Path
    pattern: str = "-%j.log"
    options: tuple[str, ...] = ()


def directives(batch: Batch, profile: Profile) -> str:
    """Return the directives of a job's script.

    Raises
    ------
    ConfigError
        If a path is one that directives cannot name.
    """
    jobs = batch.jobs
    asked = {
        "--job-name": batch.name,
        "--partition": jobs.partition,
        "--account": profile.account,
        "--qos": jobs.qos,
        "--constraint": jobs.constraint,
        "--gres": jobs.gres,
        "--nodes": "1",
        "--ntasks": "1",
        "--cpus-per-task": str(jobs.cpus),
        "--mem": f"{jobs.memory_mb}M" if profile.ask_memory else "",
        "--time": jobs.walltime,
        "--chdir": quoted(batch.folder),
        "--output": quoted(literal(batch.log) + batch.pattern),
    }
    lines = [f"{name}={value}" for name, value in asked.items() if value]
    return "\n".join(f"#SBATCH {line}" for line in [*lines, "--open-mode=append", *batch.options, *jobs.directives])
