"""Stopping a run from elsewhere: the driver is asked by a file, and what is left in SLURM's queue is cancelled."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.core.errors import RunDirectoryError
from comir_batch.execution.slurm import commands
from comir_batch.pipeline.files import read_json
from comir_batch.pipeline.run_lock import holder
from comir_batch.pipeline.status import queued_jobs, run_layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.pipeline.layout import Layout

_LOOK_EVERY_S = 0.5


class Cancelled(NamedTuple):
    """What was stopped, and how the run goes on.

    Attributes
    ----------
    driver : str
        Process and machine of the driver that has ended; empty if there was none.
    jobs : int or None
        Jobs cancelled in SLURM's queue; None where there is no `squeue`, or no answer.
    resume : str
        The command that resumes the run; empty where none is known.
    """

    driver: str
    jobs: int | None
    resume: str


def cancel(run_directory: Path, say: Callable[[str], None], patience_s: float = 60.0) -> Cancelled:
    """Stop a run's driver and cancel its jobs.

    Parameters
    ----------
    run_directory : Path
        Of the run.
    say : callable
        Takes sentences for the user.
    patience_s : float
        How long the driver may take.

    Raises
    ------
    RunDirectoryError
        If it is not a run directory, or the driver did not end in time.
    """
    layout = run_layout(run_directory)
    driver = holder(layout.lock)
    if driver:
        say(f"asked {driver} to stop; waiting until it has let go of {layout.root}")
        _stop(layout, driver, patience_s)
    jobs = queued_jobs(layout)
    commands.cancel(job.job_id for job in jobs or ())
    return Cancelled(driver, None if jobs is None else len(jobs), _resume(layout))


def _stop(layout: Layout, driver: str, patience_s: float) -> None:
    request = layout.cluster.cancel
    request.parent.mkdir(parents=True, exist_ok=True)
    request.touch()
    end = time.monotonic() + patience_s
    while holder(layout.lock):
        if time.monotonic() > end:
            raise RunDirectoryError(
                f"{driver} has not stopped within {patience_s:g} s; it will when its present task ends, if it is not "
                "hung. Look with comir-batch status, or end it by hand: whatever is done is recorded"
            )
        time.sleep(_LOOK_EVERY_S)
    request.unlink(missing_ok=True)


def _resume(layout: Layout) -> str:
    if layout.cluster.rendered.exists():
        return shlex.join(["sh", f"{read_json(layout.cluster.rendered)['folder']}/submit.sh"])
    return shlex.join(read_json(layout.run_json)["command"]) if layout.run_json.exists() else ""
