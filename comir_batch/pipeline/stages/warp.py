"""warp: the moving slide on the fixed slide's grid, at full resolution, block by block, then its coarser levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.block import BlockPlan
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.task import Task
from comir_batch.io.open import kept_slide
from comir_batch.io.transform_files import read_json
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline import cost
from comir_batch.pipeline.batches import batch_count, batch_size, batches
from comir_batch.pipeline.files import remove_tree
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import RegisterFiles, level_path
from comir_batch.pipeline.stages.chunk import BASE_MB, background
from comir_batch.warp.reduce import halve_labels, reduce_area
from comir_batch.warp.resample import memory_mb, warp_block
from comir_batch.warp.source import choose_level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.config import WarpConfig
    from comir_batch.core.slide import SlideInfo, SlideSpec

# The coarsest level is the first that fits into a square of this many pixels.
_COARSEST_SIDE = 512
_ROUNDING = 1e-6  # of a pixel, which needs no row of its own


@dataclass(frozen=True, slots=True)
class WarpWork:
    """What warping one pair takes.

    Attributes
    ----------
    image : Path
        Folder of the OME-Zarr; it has no metadata, and so is no image yet, until export writes it.
    aligned : Grid
        Pixels of the result, see `aligned_grid`.
    labels : bool
        Whether pixel values are names of things: none is ever computed from others.
    """

    image: Path
    register: Path
    moving: SlideSpec
    info: SlideInfo
    aligned: Grid
    config: WarpConfig
    labels: bool = False

    @property
    def fill(self) -> int:
        """Value of what lies outside the moving slide."""
        return 0 if self.labels else background(self.info.photometric, self.info.dtype)

    @property
    def levels(self) -> tuple[Grid, ...]:
        """Grids of the aligned pyramid, finest first; each halves the one before."""
        return aligned_levels(self.aligned)

    @property
    def memory_mb(self) -> int:
        """Most memory of one block's task."""
        block = Region(0, 0, min(self.config.shard, self.aligned.width), min(self.config.shard, self.aligned.height))
        return BASE_MB + memory_mb(block, len(self.info.channels), self.info.dtype)

    @property
    def batch_size(self) -> int:
        """Blocks of a task."""
        return batch_size(self.config.shard**2 * self.info.pixel_bytes / 1e6)

    def blocks(self, level: int) -> BlockPlan:
        """Return the blocks of one level."""
        grid = self.levels[level]
        return BlockPlan(grid.width, grid.height, self.config.shard)

    def estimate(self) -> Estimate:
        """Return what it will take."""
        tasks = 1 + sum(batch_count(len(self.blocks(level)), self.batch_size) for level in range(len(self.levels)))
        *finer, coarsest = (_decoded_mb(grid, self.info) for grid in self.levels)
        written_mb = sum(finer) + coarsest
        return Estimate(
            tasks=tasks,
            memory_mb=self.memory_mb,
            disk_mb=written_mb,
            read_mb=_decoded_mb(self._source, self.info) + sum(finer),  # each level is made of the finer one
            cpu_s=cost.warp_s(written_mb),
        )

    @property
    def _source(self) -> Grid:
        """Pixels of the level that is read, if the sections are of one size; the transform may choose the next one."""
        level, _ = choose_level(self.info, self.aligned.mpp_x / self.info.grid().mpp_x)
        return self.info.grid(level)

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """First the empty arrays, then level after level."""
        if number == 0:
            return [Task(f"{key}-arrays", prepare, self, memory_mb=BASE_MB)]
        level = number - 1
        if level == len(self.levels):
            return None
        function = warp_some if level == 0 else reduce_some
        return [
            Task(f"{key}-l{level}{batch.name}", function, (self, level, batch.regions), memory_mb=self.memory_mb)
            for batch in batches(list(enumerate(self.blocks(level))), self.batch_size)
        ]


def _decoded_mb(grid: Grid, info: SlideInfo) -> float:
    return grid.width * grid.height * info.pixel_bytes / 1e6


def aligned_grid(fixed: Grid, mpp: float) -> Grid:
    """Return the pixels of an aligned image: those of the fixed slide, or larger ones that cover it.

    Parameters
    ----------
    fixed : Grid
        Level 0 of the fixed slide.
    mpp : float
        Pixel size in µm; along an axis where the fixed slide's own is as large, that stays.
    """
    across, down = (max(mpp / own, 1.0) for own in (fixed.mpp_x, fixed.mpp_y))
    width, height = (math.ceil(side - _ROUNDING) for side in (fixed.width / across, fixed.height / down))
    return fixed.coarser(across, down, max(width, 1), max(height, 1))


def aligned_levels(finest: Grid) -> tuple[Grid, ...]:
    """Return the levels of an aligned pyramid: halved until both sides are at most 512 pixels."""
    levels = [finest]
    while max(levels[-1].shape) > _COARSEST_SIDE:
        levels.append(levels[-1].reduced(2))
    return tuple(levels)


def prepare(work: WarpWork) -> None:
    """Make the empty arrays of all levels in the place of what was there; runs on a worker."""
    remove_tree(work.image)
    for number, grid in enumerate(work.levels):
        ZarrArray.create(
            level_path(work.image, number),
            (len(work.info.channels), grid.height, grid.width),
            work.info.dtype,
            chunk=work.config.chunk,
            shard=work.config.shard,
            fill=work.fill,
        )


def warp_some(task: tuple[WarpWork, int, Sequence[Region]]) -> None:
    """Warp some blocks of the finest level, one after the other; runs on a worker."""
    work, level, regions = task
    transform = read_json(RegisterFiles(work.register).transform)
    aligned = ZarrArray.open(level_path(work.image, level))
    with kept_slide(work.moving) as moving:
        for region in regions:
            pixels = warp_block(
                moving, transform, work.aligned, region, work.config, fill=work.fill, labels=work.labels
            )
            aligned.write(region, pixels)


def reduce_some(task: tuple[WarpWork, int, Sequence[Region]]) -> None:
    """Make some blocks of a coarser level from the level below; runs on a worker."""
    work, level, regions = task
    finer, coarser = (ZarrArray.open(level_path(work.image, number)) for number in (level - 1, level))
    for region in regions:
        coarser.write(region, halved(finer, region, labels=work.labels))


def halved(finer: ZarrArray, region: Region, *, labels: bool = False) -> NDArray[np.generic]:
    """Return a region of the next level, ``(C, Y, X)``, from the finer one; see `WarpWork` for labels."""
    _, height, width = finer.shape
    pixels = finer.read(Region(2 * region.x0, 2 * region.y0, min(2 * region.x1, width), min(2 * region.y1, height)))
    return halve_labels(pixels) if labels else reduce_area(pixels, 2)
