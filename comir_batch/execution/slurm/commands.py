"""SLURM's own commands, and what they answer; works where there is no accounting."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.core.errors import ConfigError, NoWorkersError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TIMEOUT_S = 60.0
_SHORT_TIMEOUT_S = 10.0
PENDING, RUNNING = "PENDING", "RUNNING"
_NODE_GONE = ("DOWN", "NOT_RESPONDING", "FAIL", "*")
_OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)


class SlurmError(NoWorkersError):
    """A command of SLURM failed; the text is its own."""


class Fate(NamedTuple):
    """State and node of a job."""

    state: str
    node: str


class QueuedJob(NamedTuple):
    """A job as `squeue` shows it."""

    job_id: str
    name: str
    state: str
    reason: str
    node: str


def require() -> None:
    """Raise ConfigError if SLURM's commands are not to be had here."""
    missing = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not found on PATH: run this where SLURM's commands are, or make job scripts with "
            "comir-batch render and submit those"
        )


def submit(script: Path) -> str:
    """Submit a job script and return the job's id.

    Raises
    ------
    SlurmError
        If SLURM refuses it, with SLURM's reason.
    """
    # With --parsable the id stands alone on the last line, whatever banner a site prints before it.
    answer = _call("sbatch", "--parsable", str(script)).strip().splitlines()
    job_id = answer[-1].split(";")[0] if answer else ""
    if not job_id.isdigit():
        raise SlurmError(f"sbatch did not answer with a job id: {' '.join(answer)!r}")
    return job_id


def check_submission(script: Path) -> None:
    """Raise SlurmError if SLURM would refuse a job script."""
    _call("sbatch", "--test-only", str(script))


def version() -> str:
    """Return SLURM's name and version."""
    return _call("sbatch", "--version").strip()


def partition(name: str) -> dict[str, str]:
    """Return what SLURM says of a partition, or of the default one where the name is empty.

    Raises
    ------
    SlurmError
        If there is none of that name, or no default.
    """
    lines = _call("scontrol", "show", "partition", "-o", *([name] if name else [])).splitlines()
    shown = [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]
    for fields in shown:
        if fields.get("PartitionName") == name or (not name and fields.get("Default") == "YES"):
            return fields
    raise SlurmError("there is no default partition; name one")


def queue(names: Iterable[str]) -> dict[str, QueuedJob]:
    """Return this user's jobs of some names that wait, run or are about to end, by id.

    Raises
    ------
    SlurmError
        If the queue cannot be read.
    """
    text = _call("squeue", "-h", "-r", "-u", str(os.getuid()), "-n", ",".join(names), "-o", "%i|%j|%T|%r|%N")
    rows = [line.split("|", 4) for line in text.splitlines() if line.count("|") >= 4]
    jobs = [QueuedJob(*(field.strip() for field in row)) for row in rows]
    return {job.job_id: job for job in jobs if job.state not in _OVER}


def fate(job_id: str) -> Fate:
    """Return what SLURM knows of a job, ended or not; empty texts if it has forgotten it, or does not answer."""
    fields = _shown("job", job_id) if job_id else {}  # without an id it would show all jobs of the cluster
    node = fields.get("NodeList", "")
    return Fate(fields.get("JobState", ""), "" if node == "(null)" else node)


def is_down(node: str) -> bool:
    """Return whether a node is down or does not answer, as far as SLURM knows."""
    return bool(node) and any(word in _shown("node", node).get("State", "") for word in _NODE_GONE)


def _shown(what: str, name: str) -> dict[str, str]:
    try:
        text = _call("scontrol", "show", what, "-o", name, timeout_s=_SHORT_TIMEOUT_S)
    except SlurmError:
        return {}
    return dict(field.split("=", 1) for field in text.split() if "=" in field)


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs; those that are gone already are none of our business."""
    ids = list(job_ids)
    if ids:
        with suppress(SlurmError):
            _call("scancel", *ids)


def _call(*command: str, timeout_s: float = _TIMEOUT_S) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            process_group=0,  # a terminal's Ctrl-C is the driver's affair; it would end the command half-way
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gave no answer within {timeout_s:g} s") from error
    except OSError as error:
        raise SlurmError(f"cannot call {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        raise SlurmError(" ".join((done.stderr or done.stdout).split()) or f"{command[0]} failed")
    return done.stdout
