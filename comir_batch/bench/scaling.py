"""What very many pairs of slides would take: the formulas of plans, of made-up slides, laid out on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.core.manifest import PairRow
from comir_batch.core.slide import Level, SlideInfo, SlideSpec
from comir_batch.core.task import Resource
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.job import STAGES, Inference
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.pair import Pair, Slide
from comir_batch.pipeline.plan import stage_plan
from comir_batch.pipeline.stages.represent import RepresentWork
from comir_batch.representation.operations import multiplications, pixels_seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.job import Job
    from comir_batch.representation.store import Model

_SKIPPING = ("chunk", "represent")  # stages that leave out what is no tissue
_SMALLEST = 1024  # pixels of a pyramid's coarsest level, at most
STAGE_COLUMNS = ("stage", "tasks", "memory of a task (MB)", "read (GB)", "written (GB)", "CPU s")
CLUSTER_COLUMNS = ("GPUs", "cores", "networks (h)", "CPUs (h)", "storage (h)", "scheduler (h)", "bound by")


@dataclass(frozen=True, slots=True)
class Slides:
    """Slides that are not there: squares with levels of half the size each.

    Attributes
    ----------
    side : int
        Pixels.
    mpp : float
        µm of a pixel.
    rgb : bool
        Three channels of 8 bits; else one.
    tissue : float
        Share of a slide that is tissue.
    """

    side: int
    mpp: float
    rgb: bool
    tissue: float

    def info(self) -> SlideInfo:
        """Return the headers that such a slide would have."""
        halvings = max((self.side // _SMALLEST).bit_length(), 1)
        levels = tuple(Level(self.side >> k, self.side >> k, 2.0**k, 2.0**k) for k in range(halvings))
        channels = ("red", "green", "blue") if self.rgb else ("0",)
        return SlideInfo(levels, channels, "uint8", self.mpp, self.mpp, "brightfield" if self.rgb else "dark", "none")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What machines can do, as far as the plan does not know it.

    Attributes
    ----------
    cores : int
        For each GPU.
    gpu_rate : float
        10^12 multiplications of the network that a GPU does in a second.
    gigabytes_s : float
        GB that the storage reads and writes in a second, all machines together.
    stored : float
        Bytes in files for each byte of decoded pixels.
    task_ms : float
        Of the driver with its scheduler, for a task.
    """

    cores: int
    gpu_rate: float
    gigabytes_s: float
    stored: float
    task_ms: float


class StageCost(NamedTuple):
    """What one stage takes of one pair; read and written in decoded GB."""

    stage: str
    tasks: int
    memory_mb: int
    read_gb: float
    written_gb: float
    cpu_s: float

    def cells(self) -> tuple[str, ...]:
        """Return `STAGE_COLUMNS` as text."""
        sizes = (f"{self.read_gb:.2f}", f"{self.written_gb:.2f}", f"{self.cpu_s:.0f}")
        return (self.stage, str(self.tasks), str(self.memory_mb), *sizes)


class PairCost(NamedTuple):
    """What a pair takes, stage by stage, and 10^12 multiplications of its networks."""

    stages: tuple[StageCost, ...]
    teramultiplications: float


def pair_cost(model: Model, slides: Slides, config: RunConfig) -> PairCost:
    """Return what one pair takes, by the formulas of `pipeline.cost` and of the stages' estimates.

    The stages that skip background take the share of tissue; of the others, that is not counted on.
    """
    jobs = list(
        build_jobs([_pair(model, slides)], config, Layout(Path("run")), Inference("cuda", Resource.GPU)).values()
    )
    costs = (_stage_cost(stage, [job for job in jobs if job.stage == stage], slides.tissue) for stage in STAGES)
    return PairCost(tuple(each for each in costs if each.tasks), slides.tissue * _teramultiplications(jobs))


def _pair(model: Model, slides: Slides) -> Pair:
    first, second = (card.modality for card in model.card.modalities)
    specs = [SlideSpec(Path(f"{name}.tif")) for name in ("fixed", "moving")]
    fixed, moving = (
        Slide(spec, slides.info(), spec.path.stem, modality)
        for spec, modality in zip(specs, (first, second), strict=True)
    )
    row = PairRow(row=2, pair_id="p", fixed=specs[0], moving=specs[1], fixed_modality=first, moving_modality=second)
    return Pair(row, fixed, moving, model, "", (), {})


def _stage_cost(stage: str, jobs: Sequence[Job], tissue: float) -> StageCost:
    plan, share = stage_plan(stage, jobs, "cuda"), tissue if stage in _SKIPPING else 1.0
    tasks = round(share * plan.tasks)
    return StageCost(stage, tasks, plan.memory_mb, share * plan.read_gb, share * plan.disk_gb, share * plan.cpu_s)


def _teramultiplications(jobs: Iterable[Job]) -> float:
    works = [job.work for job in jobs if isinstance(job.work, RepresentWork)]
    networks = [(work.card.architecture, work.blocks) for work in works]
    return sum(multiplications(network) * pixels_seen(network, blocks) for network, blocks in networks) / 1e12


class Laid(NamedTuple):
    """How long a number of pairs takes on a number of GPUs, in hours by what each part of the cluster has to do."""

    gpus: int
    cores: int
    hours: dict[str, float]

    def cells(self) -> tuple[str, ...]:
        """Return `CLUSTER_COLUMNS` as text."""
        longest = max(self.hours, key=lambda part: self.hours[part])
        return (str(self.gpus), str(self.cores), *(f"{hours:.1f}" for hours in self.hours.values()), longest)


def laid_out(cost: PairCost, pairs: int, gpus: int, cluster: Cluster) -> Laid:
    """Return the hours of each part of a cluster, if every part is always busy; the longest of them bounds the run."""
    cpu_s = sum(stage.cpu_s for stage in cost.stages if stage.stage != "represent")
    moved_gb = sum(stage.read_gb + stage.written_gb for stage in cost.stages)
    cores = cluster.cores * gpus
    seconds = {
        "networks": cost.teramultiplications / cluster.gpu_rate / gpus,
        "CPUs": cpu_s / cores,
        "storage": cluster.stored * moved_gb / cluster.gigabytes_s,
        "scheduler": sum(stage.tasks for stage in cost.stages) * cluster.task_ms / 1000,
    }
    return Laid(gpus, cores, {part: pairs * each / 3600 for part, each in seconds.items()})
