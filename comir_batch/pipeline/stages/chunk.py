"""chunk: the working level of a slide, read once, into sharded Zarr; keyed by slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.block import BlockPlan, touches
from comir_batch.core.geometry import Region
from comir_batch.core.task import Task
from comir_batch.io.mask_reader import read_mask
from comir_batch.io.open import kept_slide, open_slide
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline import cost
from comir_batch.pipeline.batches import batch_count, batch_size, batches
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import (
    Overview,
    make_overview,
    overview_disk_mb,
    overview_mb,
    overview_read_mb,
)
from comir_batch.pipeline.strips import read_reduced, strip_mb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.config import ChunkConfig
    from comir_batch.core.slide import Photometric, SlideSpec
    from comir_batch.pipeline.working import Working

# Interpreter and libraries of a worker that reads slides, as measured; pixels come on top.
BASE_MB = 450


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """What chunking one slide takes.

    Attributes
    ----------
    margin_px : int
        How far beyond the tissue, in working pixels, blocks matter: as far as a network sees.
    mask : Path or None
        The user's mask, instead of the tissue that is found.
    """

    folder: Path
    slide: SlideSpec
    working: Working
    margin_px: int
    mask: Path | None
    config: ChunkConfig

    @property
    def files(self) -> SlideFiles:
        """Where the results go."""
        return SlideFiles(self.folder)

    @property
    def blocks(self) -> BlockPlan:
        """All blocks, tissue or not."""
        grid = self.working.grid
        return BlockPlan(grid.width, grid.height, self.config.shard)

    @property
    def memory_mb(self) -> int:
        """Most memory of one block's task."""
        pixel, shard, factor = self.working.info.pixel_bytes, self.config.shard, self.working.factor
        return BASE_MB + strip_mb(shard * factor, factor, pixel) + int(3 * pixel * shard**2 / 1e6)

    @property
    def batch_size(self) -> int:
        """Blocks of a task."""
        return batch_size((self.config.shard * self.working.factor) ** 2 * self.working.info.pixel_bytes / 1e6)

    @property
    def overview_mb(self) -> int:
        """Most memory of the overview's task."""
        return BASE_MB + overview_mb(self.working.info)

    def estimate(self) -> Estimate:
        """Return what it will take."""
        grid, info = self.working.grid, self.working.info
        read, pixel_mb = info.grid(self.working.level), info.pixel_bytes / 1e6
        read_mb = read.width * read.height * pixel_mb + overview_read_mb(info)
        return Estimate(
            tasks=1 + batch_count(len(self.blocks), self.batch_size),
            memory_mb=max(self.memory_mb, self.overview_mb),
            disk_mb=grid.width * grid.height * pixel_mb + overview_disk_mb(info),
            read_mb=read_mb,
            cpu_s=cost.chunk_s(read_mb),
        )

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """First the overview, then the blocks with tissue."""
        if number == 0:
            return [Task(f"{key}-overview", prepare, self, memory_mb=self.overview_mb)]
        if number == 1:
            blocks = tissue_blocks(self.files, self.working, self.blocks, self.margin_px)
            return [
                Task(f"{key}-{batch.name}", chunk_blocks, (self, batch.regions), memory_mb=self.memory_mb)
                for batch in batches(blocks, self.batch_size)
            ]
        return None


def background(photometric: Photometric, dtype: str) -> int:
    """Return the value of empty glass: in brightfield the largest integer of the type, and 1 for floats; else 0."""
    if photometric == "dark":
        return 0
    return 1 if np.dtype(dtype).kind == "f" else int(np.iinfo(dtype).max)


def tissue_blocks(files: SlideFiles, working: Working, blocks: BlockPlan, margin_px: int) -> list[tuple[int, Region]]:
    """Return the blocks of the working grid with tissue in them or so many pixels from them, and their numbers."""
    overview = Overview.load(files.overview)
    margin = margin_px * working.mpp
    return [
        (index, region)
        for index, region in enumerate(blocks)
        if touches(overview.tissue, overview.grid, region, working.grid, margin)
    ]


def prepare(work: ChunkWork) -> dict[str, float]:
    """Make the overview and the empty array; runs on a worker."""
    with open_slide(work.slide) as source:
        overview = make_overview(source, None if work.mask is None else read_mask(work.mask))
    overview.save(work.files.overview)
    info, grid = work.working.info, work.working.grid
    ZarrArray.create(
        work.files.pixels,
        (len(info.channels), grid.height, grid.width),
        info.dtype,
        chunk=work.config.chunk,
        shard=work.config.shard,
        fill=background(info.photometric, info.dtype),
    )
    return {"tissue": float(overview.tissue.mean())}


def chunk_blocks(task: tuple[ChunkWork, Sequence[Region]]) -> None:
    """Read, reduce and write some blocks, one after the other; runs on a worker."""
    work, regions = task
    chunked = ZarrArray.open(work.files.pixels)
    with kept_slide(work.slide) as source:
        for region in regions:
            wanted = _read_from(work.working, region)
            chunked.write(region, read_reduced(source.read, wanted, work.working.factor, work.working.info.pixel_bytes))


def _read_from(working: Working, region: Region) -> Region:
    """Return the pixels of the slide's level that a region of the working grid is made of."""
    factor, grid = working.factor, working.info.grid(working.level)
    x1, y1 = min(region.x1 * factor, grid.width), min(region.y1 * factor, grid.height)
    return Region(region.x0 * factor, region.y0 * factor, x1, y1, working.level)
