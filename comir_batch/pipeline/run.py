"""A run: from a manifest to published pairs; every command that computes comes through here."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.core.errors import ConfigError, ManifestError, RunDirectoryError
from comir_batch.core.events import Event, EventBus, Kind
from comir_batch.core.manifest import read_manifest
from comir_batch.core.task import Executor
from comir_batch.core.verdict import Verdict
from comir_batch.execution.allotment import Allotment, allotment
from comir_batch.execution.start import ExecutorRequest
from comir_batch.execution.tunnel import tunnel
from comir_batch.pipeline.batch import is_current, write_batch
from comir_batch.pipeline.driver import Driver
from comir_batch.pipeline.event_log import EventLog
from comir_batch.pipeline.files import read_json, write_json
from comir_batch.pipeline.folders import folders_read
from comir_batch.pipeline.graph import build_jobs, done_jobs, needed
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.inspect import Inspection, inspect_manifest
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.profiles import site_profile
from comir_batch.pipeline.provenance import driver_state, write_run_json
from comir_batch.pipeline.records import Records
from comir_batch.pipeline.results import left_out
from comir_batch.pipeline.scheduler import Scheduler
from comir_batch.representation.store import settled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.core.config import RunConfig
    from comir_batch.core.profile import Profile
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.results import PairResult


@dataclass(frozen=True)
class RunRequest:
    """What to run.

    Attributes
    ----------
    manifest : Path
        The pairs.
    out : Path
        The run directory; made if it is not there.
    config : RunConfig
        Settings.
    target : str
        Stage to go up to; `report` is the whole run.
    keep_work : bool
        Whether bulky intermediate results stay.
    skip_bad_rows : bool
        Run the good rows where others are bad, instead of nothing.
    command : tuple of str
        The command line, for the record.
    """

    manifest: Path
    out: Path
    config: RunConfig
    target: str = "report"
    keep_work: bool = False
    skip_bad_rows: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """What became of it: a result for each pair in the manifest's order, then for each row that was skipped."""

    results: tuple[PairResult, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: all accepted or for review; 1: some rejected, in error or skipped; 4: all. A person's decision counts."""
        bad = sum(result.final in {Verdict.REJECT, Verdict.ERROR} for result in self.results)
        return 0 if bad == 0 else 4 if bad == len(self.results) else 1


def inspect_request(manifest: Path, config: RunConfig, *, skip_bad_rows: bool) -> Inspection:
    """Read the manifest and all headers.

    Raises
    ------
    ManifestError
        If a row is bad and bad rows are not to be skipped, or no good row is left.
    """
    inspection = inspect_manifest(read_manifest(manifest), config.model)
    if inspection.problems and (not skip_bad_rows or not inspection.pairs):
        raise ManifestError(inspection.problems)
    return inspection


StartExecutor = Callable[[ExecutorRequest], Executor]


def run(request: RunRequest, bus: EventBus, start_executor: StartExecutor) -> RunSummary:
    """Run, or resume, up to the target stage.

    Parameters
    ----------
    request : RunRequest
        What to run.
    bus : EventBus
        Hears of the progress.
    start_executor : callable
        Starts the resources; called only when there is work to do.

    Raises
    ------
    ManifestError
        See `inspect_request`; nothing was run.
    RunDirectoryError
        If another driver holds the run directory.
    NoWorkersError, StoppedError
        From the executor; what was finished stays recorded.
    """
    # A model's folder is one for the next command, too, wherever that is given.
    config = request.config.model_copy(update={"model": settled(request.config.model, Path())})
    request = replace(request, config=config)
    inspection = inspect_request(request.manifest, request.config, skip_bad_rows=request.skip_bad_rows)
    return run_inspected(inspection, request, bus, start_executor)


def run_inspected(
    inspection: Inspection, request: RunRequest, bus: EventBus, start_executor: StartExecutor
) -> RunSummary:
    """Run, or resume, pairs that are inspected already; see `run`."""
    started = time.monotonic()
    profile = site_profile(request.config.execution)
    where = inference(request.config.execution, profile)
    config = request.config.model_copy(
        update={"execution": request.config.execution.model_copy(update={"device": where.device})}
    )
    layout = Layout(request.out.resolve())
    with Records(layout, partial(_notice, bus)) as records:
        layout.cluster.cancel.unlink(missing_ok=True)
        bus.subscribe(EventLog(layout.log))
        jobs = build_jobs(inspection.pairs, config, layout, where)
        keep_work = request.keep_work or request.target != "report"
        driver = Driver(layout, records, bus, jobs, target=request.target, keep_work=keep_work)
        in_flight = _in_flight(config, profile)
        scheduler = _scheduler(jobs, records, driver, inspection, request, in_flight)
        works = not scheduler.finished
        changed = write_run_json(request, inspection, layout, profile, works=works)
        names = tuple(pair.name for pair in inspection.pairs)
        bus.publish(Event(Kind.RUN_STARTED, pairs=names, data={"jobs": len(scheduler.open_jobs())}))
        try:
            if works:
                records.begun()
                wanted = ExecutorRequest(
                    config.execution, layout.cluster, profile, folders_read(inspection.pairs), partial(_notice, bus)
                )
                _execute(scheduler, bus, start_executor(wanted), wanted)
        finally:
            results = tuple(driver.result(pair.name) for pair in inspection.pairs)
            results += tuple(left_out(inspection.problems, inspection.pair_ids))
            seconds = time.monotonic() - started
            if request.target == "report" and (changed or not is_current(layout, results)):
                write_batch(layout, results, inspection, records.history, jobs, where.device)
    verdicts = Counter("-" if result.verdict is None else result.verdict.value for result in results)
    bus.publish(Event(Kind.RUN_DONE, data={"verdicts": dict(verdicts), "seconds": seconds}))
    return RunSummary(results, seconds)


class EarlierRun(NamedTuple):
    """What a run directory was made with: manifest, settings and options; and the names of its pairs."""

    manifest: Path
    settings: dict[str, Any]
    keep_work: bool
    skip_bad_rows: bool
    pairs: tuple[str, ...]


def earlier_run(run_directory: Path) -> EarlierRun:
    """Return what an existing run directory was made with.

    Raises
    ------
    RunDirectoryError
        If it is not one.
    """
    path = Layout(run_directory.resolve()).run_json
    if not path.is_file():
        raise RunDirectoryError(
            f"{run_directory} is not a run directory: it has no run.json. Start with comir-batch run"
        )
    content = read_json(path)
    return EarlierRun(
        Path(content["manifest"]["path"]),
        content["config"],
        content["keep_work"],
        content.get("skip_bad_rows", False),
        tuple(pair["pair_id"] for pair in content["pairs"]),
    )


def _scheduler(
    jobs: Mapping[str, Job],
    records: Records,
    driver: Driver,
    inspection: Inspection,
    request: RunRequest,
    in_flight: int,
) -> Scheduler:
    root, history = request.out.resolve(), records.history
    done = done_jobs(dict(jobs), history, root)
    wanted = needed(dict(jobs), request.target, done)
    resumable = {key: history.of(key) for key, job in wanted.items() if key in done or history.is_resumable(job, root)}
    return Scheduler(
        wanted,
        done,
        resumable,
        [pair.name for pair in inspection.pairs],
        driver,
        in_flight=in_flight,
        retries=request.config.execution.retries,
    )


def _in_flight(config: RunConfig, profile: Profile | None) -> int:
    """Return how many pairs to work on at once: twice as many as workers, so that none waits for a long single task."""
    elsewhere = sum(jobs.jobs for jobs in profile.kinds().values()) if profile else 0
    cores = allotment(Allotment(os.cpu_count() or 1, 0), os.environ).cores
    return config.pairs_in_flight or max(4, 2 * (elsewhere or config.execution.workers or cores))


def _require_memory(scheduler: Scheduler, executor: Executor) -> None:
    """Refuse a run whose largest task fits no worker before the first hour is spent, not after the last."""
    for job in scheduler.open_jobs():
        memory_mb, limit_mb = job.work.estimate().memory_mb, executor.memory_mb(job.resource)
        if 0 < limit_mb < memory_mb:
            remedy = (
                "Use fewer workers, give each more (execution.memory_gb; max_memory_gb of a profile), or lower "
                "register.max_memory_gb"
            )
            raise ConfigError(f"{job.stage} needs up to {memory_mb} MB and a worker has {limit_mb} MB. {remedy}")


def _execute(scheduler: Scheduler, bus: EventBus, executor: Executor, request: ExecutorRequest) -> None:
    try:
        _require_memory(scheduler, executor)
        address = executor.dashboard
        write_json(request.files.state, driver_state(request.files.root, address))
        if address:
            way = "" if request.config.executor == "local" else tunnel(address)
            bus.publish(Event(Kind.DASHBOARD, data={"address": address, "tunnel": way}))
        executor.run(scheduler)
    finally:
        executor.close()


def _notice(bus: EventBus, message: str) -> None:
    bus.publish(Event(Kind.NOTICE, data={"message": message}))
