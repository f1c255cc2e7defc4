"""What a run would do, from headers alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.core.task import Resource
from comir_batch.pipeline import cost
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.profiles import site_profile
from comir_batch.pipeline.rates import read_rates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.job import Device, Job
    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.rates import Rate


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage over all pairs.

    Attributes
    ----------
    jobs, tasks : int
        Number of slides or pairs, and of tasks at most.
    tiles : int
        Of networks, at most; halos come on top.
    resource : str
        Workers that it needs.
    memory_mb : int
        Of its largest task.
    disk_gb : float
        Written, before compression.
    read_gb : float
        Read, decoded.
    cpu_s : float
        CPU time by the constants of `cost`; of networks, too, wherever they run.
    device : {"cpu", "cuda"}
        Where it computes.
    longest_s : float
        CPU time of its longest task.
    """

    stage: str
    jobs: int
    tasks: int
    tiles: int
    resource: str
    memory_mb: int
    disk_gb: float
    read_gb: float
    cpu_s: float
    device: Device
    longest_s: float = 0.0


class Hours(NamedTuple):
    """Hours of CPUs and of workers; None where they are not known."""

    cpu: float | None
    workers: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before it is run.

    Attributes
    ----------
    stages : tuple of StagePlan
        In their order.
    free_gb : float
        Space left where the run directory is, or would be.
    rates : mapping of (str, str) to Rate
        What a run took for each predicted second, by stage and device; instead of the constants' machine.
    cpu_jobs : int
        CPU jobs at once that the site's profile allows; 0 without one.
    """

    pairs: int
    stages: tuple[StagePlan, ...]
    free_gb: float
    rates: Mapping[tuple[str, Device], Rate] = field(default_factory=dict)
    cpu_jobs: int = 0

    @property
    def disk_gb(self) -> float:
        """Written by all stages, before compression."""
        return sum(stage.disk_gb for stage in self.stages)

    @property
    def read_gb(self) -> float:
        """Read by all stages, decoded."""
        return sum(stage.read_gb for stage in self.stages)

    @property
    def unrated(self) -> tuple[str, ...]:
        """Stages of which the rates tell nothing."""
        return tuple(stage.stage for stage in self.stages if (stage.stage, stage.device) not in self.rates)

    def hours(self, stage: StagePlan) -> Hours:
        """Return the hours of a stage: by the rates, else by the constants, which know no GPU and no worker."""
        rate = self.rates.get((stage.stage, stage.device))
        if rate is not None:
            return Hours(stage.cpu_s * rate.cpu / 3600, stage.cpu_s * rate.workers / 3600)
        return Hours(stage.cpu_s / 3600 if stage.device == "cpu" else None, None)

    def spread(self) -> tuple[float, float]:
        """Return the hours that all CPU jobs are busy, each with a task at a time, and those of the longest task."""
        each = [(stage, self.hours(stage)) for stage in self.stages if stage.resource == Resource.CPU]
        busy = {stage: hours.workers or hours.cpu or 0.0 for stage, hours in each}
        longest = [hours * stage.longest_s / stage.cpu_s for stage, hours in busy.items() if stage.cpu_s]
        return max([sum(busy.values()) / max(self.cpu_jobs, 1), *longest]), max(longest, default=0.0)


def make_plan(pairs: Sequence[Pair], config: RunConfig, out: Path, like: Path | None = None) -> Plan:
    """Plan a run without reading a pixel or writing a file.

    Parameters
    ----------
    pairs : sequence of Pair
        Inspected.
    config : RunConfig
        Settings.
    out : Path
        Where the run directory would be.
    like : Path or None
        A run directory, whose stages tell how long those of this run will take.

    Raises
    ------
    RunDirectoryError
        If `like` is none, or does not tell.
    """
    profile = site_profile(config.execution)
    where = inference(config.execution, profile)
    jobs = build_jobs(pairs, config, Layout(out.resolve()), where)
    stages = [stage_plan(stage, [job for job in jobs.values() if job.stage == stage], where.device) for stage in STAGES]
    rates = {} if like is None else read_rates(like)
    wanted = tuple(stage for stage in stages if stage.jobs)
    return Plan(len(pairs), wanted, _free_gb(out.resolve()), rates, profile.cpu.jobs if profile else 0)


def stage_plan(stage: str, jobs: Sequence[Job], device: Device) -> StagePlan:
    """Return what jobs of one stage will take, where networks run on a device."""
    estimates = [job.work.estimate() for job in jobs]
    return StagePlan(
        stage=stage,
        jobs=len(jobs),
        tasks=sum(estimate.tasks for estimate in estimates),
        tiles=sum(estimate.tiles for estimate in estimates),
        resource=jobs[0].resource.value if jobs else "",
        memory_mb=max((estimate.memory_mb for estimate in estimates), default=0),
        disk_gb=sum(estimate.disk_mb for estimate in estimates) / 1000,
        read_gb=sum(estimate.read_mb for estimate in estimates) / 1000,
        cpu_s=(cost.start_s(stage) if jobs else 0.0) + sum(estimate.cpu_s for estimate in estimates),
        device=device if stage == "represent" else "cpu",
        longest_s=max((estimate.cpu_s / max(estimate.tasks, 1) for estimate in estimates), default=0.0),
    )


def _free_gb(out: Path) -> float:
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    return shutil.disk_usage(there).free / 1e9
