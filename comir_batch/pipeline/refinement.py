"""Block refinement of a pair on workers: regions of the working level are matched side by side, then fitted as one."""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal
from zipfile import BadZipFile

import numpy as np

from comir_batch.core.block import BlockPlan
from comir_batch.core.errors import TaskError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.task import Task
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.io.transform_files import write_json as write_transform_json
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.files import read_arrays, read_json, write_arrays, write_json
from comir_batch.pipeline.layout import RegisterFiles, SlideFiles, in_run
from comir_batch.pipeline.overview import Overview, sample_nearest
from comir_batch.pipeline.records import FILES
from comir_batch.pipeline.stages.chunk import BASE_MB, tissue_blocks
from comir_batch.quality.points import BlockCounts
from comir_batch.registration.blocks import counted_blocks, offsets_within
from comir_batch.registration.refine import Blocks, State, refine
from comir_batch.representation.one_image import as_one_image
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Composite
    from comir_batch.pipeline.views import Side

    Laid = tuple[NDArray[np.float32], NDArray[np.bool_]]

_BLOCKS_A_SIDE = 16  # of a region, which is one task
_FOOTPRINT_MARGIN_PX = 16  # a smooth transform bends less between the points that the footprint is told by
_FOOTPRINT_POINTS = 17
_INSIDE = 0.99
_LEAST_SHARE = 0.01  # of a block with tissue on each slide; far less than what a block is looked for with
_COPIES = 12  # float32 planes of a region: both images, masks, and what is read of the moving slide, turned


@dataclass(frozen=True, slots=True)
class Refinement:
    """What refining one registered pair by blocks takes.

    Attributes
    ----------
    folder : Path
        Of the register job, which has written all but the transform.
    fixed, moving : Side
        The slides.
    reduction : int
        How much coarser than the working level registration worked.
    config : RegisterConfig
        Settings.
    """

    folder: Path
    fixed: Side
    moving: Side
    reduction: int
    config: RegisterConfig

    @property
    def files(self) -> RegisterFiles:
        """Of the register job."""
        return RegisterFiles(self.folder)

    @property
    def regions(self) -> BlockPlan:
        """Regions of the fixed slide's working level, whole blocks each."""
        grid = self.fixed.working.grid
        return BlockPlan(grid.width, grid.height, _BLOCKS_A_SIDE * self.config.block_side)

    @property
    def blocks(self) -> float:
        """How many blocks there are at most."""
        grid = self.fixed.working.grid
        return grid.width * grid.height / self.config.block_side**2

    @property
    def memory_mb(self) -> int:
        """Most memory of one region's task."""
        side = _BLOCKS_A_SIDE * self.config.block_side + 2 * self.config.block_reach
        channels = len(self.fixed.working.info.channels) + len(self.moving.working.info.channels)
        finer = max(self.fixed.working.mpp / self.moving.working.mpp, 1.0)
        return BASE_MB + int((_COPIES + 2 * channels) * (finer * side) ** 2 * 4 / 1e6)

    def with_tissue(self) -> list[tuple[int, Region]]:
        """Return the regions that blocks are looked for in, and their numbers."""
        return tissue_blocks(SlideFiles(self.fixed.chunk), self.fixed.working, self.regions, 0)

    def matching(self, key: str) -> list[Task]:
        """Return the tasks that look for blocks, one for each region with tissue."""
        return [
            Task(
                key=f"{key}-b{index}",
                function=match_region,
                payload=(self, index, region),
                memory_mb=self.memory_mb,
                writes=(self.files.blocks(index),),
            )
            for index, region in self.with_tissue()
        ]

    def fitting(self, key: str) -> list[Task]:
        """Return the task that fits what was found."""
        return [Task(f"{key}-fit", fit_blocks, self, memory_mb=BASE_MB, writes=(self.files.transform,))]


def match_region(task: tuple[Refinement, int, Region]) -> dict[str, Any]:
    """Look for the blocks of one region; runs on a worker."""
    work, index, region = task
    view: Literal["comir", "raw"] = read_json(work.files.summary)["view"]
    transform = read_transform_json(work.files.unrefined)
    side, reach = work.config.block_side, work.config.block_reach
    fixed, around = _laid(work, region, view, transform)
    metric: Literal["ncc", "mi"] = "ncc" if view == "comir" else "mi"
    tried = counted_blocks(fixed[1], side)
    offsets = offsets_within(fixed, around, metric, side, reach)
    path = work.files.blocks(index)
    write_arrays(path, offsets=offsets, tried=tried)
    located = np.isfinite(offsets).all(axis=-1)
    return {"tried": int(tried.sum()), "located": int(located.sum()), FILES: [in_run(path, work.folder)]}


def fit_blocks(work: Refinement) -> dict[str, Any]:
    """Write the refined transform, and what became of the blocks; runs on a worker."""
    blocks = _gathered(work)
    refined = refine(read_transform_json(work.files.unrefined), blocks)
    used = refined.states == State.USED
    shifts = np.where(used, np.linalg.norm(blocks.offsets_um, axis=-1), np.nan)
    counts = BlockCounts(
        tried=int(blocks.tried.sum()),
        used=int(used.sum()),
        outliers=int((refined.states == State.OUTLIER).sum()),
        median_um=float(np.nanmedian(shifts)) if used.any() else 0.0,
        refined=refined.stiffness > 0,
    )
    write_arrays(work.files.block_map, states=refined.states, shifts_um=shifts, side=np.array(blocks.side))
    write_json(work.files.block_counts, asdict(counts))
    write_transform_json(refined.transform, work.files.transform)
    return asdict(counts) | {FILES: [in_run(work.files.transform, work.folder)]}


def read_counts(files: RegisterFiles) -> BlockCounts | None:
    """Return what became of a pair's blocks; None where it was not refined by blocks."""
    return BlockCounts(**read_json(files.block_counts)) if files.block_counts.exists() else None


def _gathered(work: Refinement) -> Blocks:
    grid, side = work.fixed.working.grid, work.config.block_side
    shape = grid.height // side, grid.width // side
    offsets, tried = np.full((*shape, 2), np.nan), np.zeros(shape, dtype=bool)
    for index, region in work.with_tissue():
        found = _found(work.files.blocks(index))
        rows, columns = found["tried"].shape
        y, x = region.y0 // side, region.x0 // side
        offsets[y : y + rows, x : x + columns] = found["offsets"]
        tried[y : y + rows, x : x + columns] = found["tried"]
    return Blocks(grid, side, offsets, tried)


def _found(path: Path) -> dict[str, NDArray[Any]]:
    """Read what a region's task has written; without it, its blocks would pass for glass."""
    try:
        return read_arrays(path)
    except (FileNotFoundError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        how = "is missing" if isinstance(error, FileNotFoundError) else "is damaged; delete it"
        raise TaskError(
            f"{path}, which holds what blocks found in a region with tissue, {how}. "
            "The same command registers the pair again"
        ) from error


def _laid(work: Refinement, region: Region, view: str, transform: Composite) -> tuple[Laid, Laid]:
    """Return a region of the fixed image, and the moving image laid on it and on what is within reach."""
    here = _part(work.fixed.working.grid, region)
    around = _part(work.fixed.working.grid, region.grown(work.config.block_reach))
    mask = _tissue(work.fixed, here) & ~_held_out(work, here)
    footprint = _footprint(transform, around, work.moving.working.grid)
    fixed = _pixels(work.fixed, region, view)
    nothing = np.zeros(around.shape, np.float32)
    if footprint is None:
        return (_grey(fixed), mask), (nothing, nothing > 0)
    there = _part(work.moving.working.grid, footprint)
    moving = _pixels(work.moving, footprint, view)
    masks = mask & np.isfinite(fixed).all(axis=0), _tissue(work.moving, there) & np.isfinite(moving).all(axis=0)
    if min(each.sum() for each in masks) < _LEAST_SHARE * work.config.block_side**2:  # no block is to be found
        return (np.where(masks[0], _grey(fixed), 0), masks[0]), (nothing, nothing > 0)
    first, second = as_one_image((fixed, moving), masks) if view == "comir" else (_grey(fixed), _grey(moving))
    stack = np.stack([np.where(masks[1], second, 0), masks[1]]).astype(np.float32)
    pixels, inside = warp_array(stack, there, transform, around).astype(np.float32)
    return (np.where(masks[0], first, 0).astype(np.float32), masks[0]), (pixels, inside > _INSIDE)


def _pixels(side: Side, region: Region, view: str) -> NDArray[np.float32]:
    folder = side.representation if view == "comir" else side.chunk
    assert folder is not None  # noqa: S101  there is no such view without a representation
    return ZarrArray.open(SlideFiles(folder).pixels).read(region).astype(np.float32)


def _grey(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(pixels.mean(axis=0), dtype=np.float32)


def _part(grid: Grid, region: Region) -> Grid:
    x, y = grid.to_um([[region.x0, region.y0]])[0]
    return Grid(region.width, region.height, grid.mpp_x, grid.mpp_y, float(x), float(y))


def _tissue(side: Side, grid: Grid) -> NDArray[np.bool_]:
    overview = Overview.load(SlideFiles(side.chunk).overview)
    return sample_nearest(overview.tissue, overview.grid, grid)


def _held_out(work: Refinement, grid: Grid) -> NDArray[np.bool_]:
    """Return the pixels that are left to the verdict."""
    held_out = read_arrays(work.files.held_out)["held_out"]
    return sample_nearest(held_out, work.fixed.working.grid.reduced(work.reduction), grid)


def _footprint(transform: Composite, fixed: Grid, moving: Grid) -> Region | None:
    """Return the moving pixels that a transform lays on a fixed grid; None if there are none."""
    across, down = (np.linspace(0, side - 1, _FOOTPRINT_POINTS) for side in (fixed.width, fixed.height))
    points = fixed.to_um(np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2))
    pixels = moving.to_pixels(transform.map(points))
    low = np.floor(pixels.min(axis=0)).astype(int) - _FOOTPRINT_MARGIN_PX
    high = np.ceil(pixels.max(axis=0)).astype(int) + _FOOTPRINT_MARGIN_PX + 1
    return Region(int(low[0]), int(low[1]), int(high[0]), int(high[1])).within(moving.width, moving.height)
