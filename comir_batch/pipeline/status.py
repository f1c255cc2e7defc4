"""How a run stands, read from its files and from SLURM's queue; it disturbs nothing, and the run may be writing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.events import Event, Kind
from comir_batch.execution.slurm import commands
from comir_batch.execution.start import job_name
from comir_batch.pipeline.files import read_json
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run_lock import holder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from comir_batch.execution.slurm.commands import QueuedJob

_NO_JOBS = ("local", "serial")  # executors


@dataclass(frozen=True, slots=True)
class StageStatus:
    """Tasks of a stage that are done, and that are known of so far: later phases are planned as earlier ones end."""

    stage: str
    done: int
    planned: int


@dataclass(frozen=True, slots=True)
class Status:
    """How a run stands.

    Attributes
    ----------
    root : Path
        The run directory.
    holder : str
        Process and machine of the driver that runs; empty if none does.
    since : float
        When that driver began to work, or the last one was last heard of; 0 if none has yet.
    dashboard, tunnel : str
        Of the driver that runs; empty if there is none.
    jobs : tuple of QueuedJob or None
        The run's jobs in SLURM's queue; None where there is no `squeue`, or no answer.
    pairs : int
        In the manifest; 0 as long as no driver has read it.
    verdicts : dict
        Number of finished pairs by verdict; ``-`` where the run stops before one.
    stages : tuple of StageStatus
        Those that have begun, in their order.
    errors : tuple of str
        Of jobs that have failed and were not begun anew.
    last : Event or None
        The last event.
    """

    root: Path
    holder: str
    since: float
    dashboard: str
    tunnel: str
    jobs: tuple[QueuedJob, ...] | None
    pairs: int
    verdicts: dict[str, int]
    stages: tuple[StageStatus, ...]
    errors: tuple[str, ...]
    last: Event | None

    @property
    def running(self) -> bool:
        """Whether a driver is alive."""
        return bool(self.holder)

    @property
    def pairs_done(self) -> int:
        """Number of pairs to which nothing more will happen."""
        return sum(self.verdicts.values())


@dataclass(slots=True)
class _Tally:
    """What the events add up to."""

    tasks: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    dashboard: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    last: Event | None = None

    def add(self, event: Event) -> None:
        self.last = event
        stage, done, planned = self.tasks.get(event.job, (event.stage, 0, 0))
        match event.kind:
            case Kind.JOB_STARTED:
                done = 0 if event.data["fresh"] else done
                self.tasks[event.job] = (stage, done, done)
                self.errors.pop(event.job, None)
                for pair in event.pairs:
                    self.verdicts.pop(pair, None)
            case Kind.TASKS_PLANNED:
                self.tasks[event.job] = (stage, done, planned + int(event.data["tasks"]))
            case Kind.TASK_DONE:
                self.tasks[event.job] = (stage, done + 1, planned)
            case Kind.JOB_FAILED:
                self.errors[event.job] = f"{event.stage} of {', '.join(event.pairs)}: {event.data['message']}"
            case Kind.PAIR_DONE:
                self.verdicts |= dict.fromkeys(event.pairs, event.data["verdict"] or "-")
            case Kind.RUN_STARTED:
                self.dashboard, self.started = {}, event.at
            case Kind.DASHBOARD:
                self.dashboard = event.data

    def stages(self) -> Iterator[StageStatus]:
        for stage in STAGES:
            mine = [(done, planned) for name, done, planned in self.tasks.values() if name == stage]
            if mine:
                yield StageStatus(stage, sum(done for done, _ in mine), sum(planned for _, planned in mine))


def read_status(run_directory: Path) -> Status:
    """Read how a run stands.

    Raises
    ------
    RunDirectoryError
        If it is not a run directory.
    """
    layout = run_layout(run_directory)
    tally = _Tally()
    for event in _events(layout.log):
        tally.add(event)
    held = holder(layout.lock)
    pairs = len(read_json(layout.run_json)["pairs"]) if layout.run_json.exists() else 0
    last_heard = 0.0 if tally.last is None else tally.last.at
    dashboard = tally.dashboard if held else {}
    return Status(
        root=layout.root,
        holder=held,
        since=tally.started if held else last_heard,
        dashboard=dashboard.get("address", ""),
        tunnel=dashboard.get("tunnel", ""),
        jobs=queued_jobs(layout),
        pairs=pairs,
        verdicts=dict(sorted(Counter(tally.verdicts.values()).items())),
        stages=tuple(tally.stages()),
        errors=tuple(tally.errors.values()),
        last=tally.last,
    )


def run_layout(run_directory: Path) -> Layout:
    """Return the layout of an existing run, also of one whose first driver is still waiting in a queue.

    Raises
    ------
    RunDirectoryError
        If it is none.
    """
    layout = Layout(run_directory.resolve())
    if not any(path.exists() for path in (layout.run_json, layout.lock, layout.cluster.folder)):
        raise RunDirectoryError(f"{run_directory} is not a run directory: it has no run.json")
    return layout


def queued_jobs(layout: Layout) -> tuple[QueuedJob, ...] | None:
    """Return the run's jobs in SLURM's queue; None where there is no `squeue`, or no answer."""
    if layout.run_json.exists() and read_json(layout.run_json)["config"]["execution"]["executor"] in _NO_JOBS:
        return ()
    if shutil.which("squeue") is None:
        return None
    try:
        return tuple(commands.queue([job_name(layout.root)]).values())
    except commands.SlurmError:
        return None


def as_json(status: Status) -> dict[str, Any]:
    """Return a status as plain values."""
    jobs = None if status.jobs is None else [job._asdict() for job in status.jobs]
    stages = {stage.stage: {"done": stage.done, "planned": stage.planned} for stage in status.stages}
    last = status.last
    return {
        "directory": str(status.root),
        "running": status.running,
        "driver": status.holder,
        "since": status.since,
        "dashboard": status.dashboard,
        "tunnel": status.tunnel,
        "jobs": jobs,
        "pairs": {"all": status.pairs, "done": status.pairs_done, "verdicts": status.verdicts},
        "tasks": stages,
        "errors": list(status.errors),
        "last_event": None if last is None else {"kind": last.kind, "job": last.job, "at": last.at},
    }


def _events(path: Path) -> Iterable[Event]:
    """Yield the events of a log; a line that is not whole was being written, or its writer was killed over it."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
            yield Event(**values | {"kind": Kind(values["kind"]), "pairs": tuple(values["pairs"])})
        except (ValueError, TypeError):
            continue
