"""represent: the CoMIR of a slide, block by block; keyed by slide and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.block import BlockPlan
from comir_batch.core.task import Task
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline import cost
from comir_batch.pipeline.batches import batch_count, batches
from comir_batch.pipeline.files import read_json, write_json
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.pipeline.stages.chunk import BASE_MB, tissue_blocks
from comir_batch.representation.memory import TILE, memory_mb
from comir_batch.representation.normalise import Range, intensity_range
from comir_batch.representation.operations import multiplications, pixels_seen
from comir_batch.representation.store import find_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.card import ModalityCard
    from comir_batch.core.config import ChunkConfig, RepresentConfig
    from comir_batch.core.geometry import Region
    from comir_batch.core.task import Resource
    from comir_batch.pipeline.job import Inference
    from comir_batch.pipeline.working import Working

_OVERVIEW_MB = 200
# Interpolation at the tissue's border needs a few pixels beyond it.
_MARGIN_PX = 16
_GPU_BATCH = 16  # blocks of a task on a GPU, to which one of them is nothing; on a CPU one takes ten seconds


@dataclass(frozen=True, slots=True)
class RepresentWork:
    """What representing one slide takes."""

    folder: Path
    chunk: Path
    working: Working
    model: str
    card: ModalityCard
    inference: Inference
    config: RepresentConfig
    storage: ChunkConfig

    @property
    def files(self) -> SlideFiles:
        """Where the results go."""
        return SlideFiles(self.folder)

    @property
    def source(self) -> SlideFiles:
        """What is represented."""
        return SlideFiles(self.chunk)

    @property
    def resource(self) -> Resource:
        """Kind of worker that the network runs on."""
        return self.inference.resource

    @property
    def blocks(self) -> BlockPlan:
        """All blocks, tissue or not."""
        grid = self.working.grid
        return BlockPlan(grid.width, grid.height, self.storage.shard)

    @property
    def batch_size(self) -> int:
        """Blocks of a task."""
        return _GPU_BATCH if self.inference.device == "cuda" else 1

    @property
    def memory_mb(self) -> int:
        """Most memory of one block's task."""
        return memory_mb(self.card, self.storage.shard)

    def estimate(self) -> Estimate:
        """Return what it will take."""
        grid, item, network = self.working.grid, np.dtype(self.config.dtype).itemsize, self.card.architecture
        pixels = grid.width * grid.height
        return Estimate(
            tasks=1 + batch_count(len(self.blocks), self.batch_size),
            memory_mb=self.memory_mb,
            disk_mb=pixels * network.latent_channels * item / 1e6,
            tiles=sum(-(-block.width // TILE) * -(-block.height // TILE) for block in self.blocks),
            read_mb=pixels * self.working.info.pixel_bytes / 1e6,
            cpu_s=cost.represent_s(multiplications(network) * pixels_seen(network, self.blocks)),
        )

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """First the intensity ranges of the slide, then the blocks with tissue."""
        if number == 0:
            return [Task(f"{key}-ranges", prepare, self, memory_mb=BASE_MB + _OVERVIEW_MB)]
        if number == 1:
            blocks = tissue_blocks(self.source, self.working, self.blocks, _MARGIN_PX)
            return [
                Task(f"{key}-{batch.name}", represent_blocks, (self, batch.regions), self.resource, self.memory_mb)
                for batch in batches(blocks, self.batch_size)
            ]
        return None


def prepare(work: RepresentWork) -> None:
    """Measure the slide's intensity ranges and make the empty array; runs on a worker."""
    overview = Overview.load(work.source.overview)
    ranges = intensity_range(overview.pixels, overview.tissue, work.card.input)
    write_json(work.files.ranges, ranges)
    grid = work.working.grid
    ZarrArray.create(
        work.files.pixels,
        (work.card.architecture.latent_channels, grid.height, grid.width),
        work.config.dtype,
        chunk=work.storage.chunk,
        shard=work.storage.shard,
    )


def represent_blocks(task: tuple[RepresentWork, Sequence[Region]]) -> None:
    """Represent some blocks, one after the other; runs on a worker, which keeps the network for the next."""
    from comir_batch.representation.weights import load  # noqa: PLC0415  torch, which a host that only drives has not

    work, regions = task
    ranges = tuple(Range(*limits) for limits in read_json(work.files.ranges))
    network = load(find_model(work.model), work.card.modality, work.inference.device, work.config.precision)
    source, grid = ZarrArray.open(work.source.pixels), work.working.grid
    represented = ZarrArray.open(work.files.pixels)
    for region in regions:
        representation = network.represent(source.read, (grid.width, grid.height), region, ranges)
        represented.write(region, representation.astype(work.config.dtype))
