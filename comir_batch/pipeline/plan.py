"""What a run would do, from headers alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.job import STAGES
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.profiles import site_profile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.pair import Pair


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
    """

    stage: str
    jobs: int
    tasks: int
    tiles: int
    resource: str
    memory_mb: int
    disk_gb: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A run before it is run.

    Attributes
    ----------
    stages : tuple of StagePlan
        In their order.
    free_gb : float
        Space left where the run directory is, or would be.
    """

    pairs: int
    stages: tuple[StagePlan, ...]
    free_gb: float

    @property
    def disk_gb(self) -> float:
        """Written by all stages, before compression."""
        return sum(stage.disk_gb for stage in self.stages)


def make_plan(pairs: Sequence[Pair], config: RunConfig, out: Path) -> Plan:
    """Plan a run without reading a pixel or writing a file.

    Parameters
    ----------
    pairs : sequence of Pair
        Inspected.
    config : RunConfig
        Settings.
    out : Path
        Where the run directory would be.
    """
    jobs = build_jobs(pairs, config, Layout(out.resolve()), inference(config.execution, site_profile(config.execution)))
    stages = [_stage_plan(stage, [job for job in jobs.values() if job.stage == stage]) for stage in STAGES]
    return Plan(len(pairs), tuple(stage for stage in stages if stage.jobs), _free_gb(out.resolve()))


def _stage_plan(stage: str, jobs: Sequence[Job]) -> StagePlan:
    estimates = [job.work.estimate() for job in jobs]
    return StagePlan(
        stage=stage,
        jobs=len(jobs),
        tasks=sum(estimate.tasks for estimate in estimates),
        tiles=sum(estimate.tiles for estimate in estimates),
        resource=jobs[0].resource.value if jobs else "",
        memory_mb=max((estimate.memory_mb for estimate in estimates), default=0),
        disk_gb=sum(estimate.disk_mb for estimate in estimates) / 1000,
    )


def _free_gb(out: Path) -> float:
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    return shutil.disk_usage(there).free / 1e9
