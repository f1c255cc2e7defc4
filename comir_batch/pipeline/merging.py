"""One image of all slides that lie on one fixed slide: its channels, then those of each aligned image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.block import BlockPlan
from comir_batch.core.config import RunConfig, WarpConfig
from comir_batch.core.errors import ManifestError, UserError
from comir_batch.core.manifest import read_manifest
from comir_batch.core.transform import Composite
from comir_batch.io.ngff_writer import NgffImage
from comir_batch.io.open import open_slide
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.by_hand import config_of, read_by_hand
from comir_batch.pipeline.files import read_json, remove_tree
from comir_batch.pipeline.image_file import publish, require_image_name
from comir_batch.pipeline.layout import Layout, level_path
from comir_batch.pipeline.run import earlier_run
from comir_batch.pipeline.stages.chunk import background
from comir_batch.pipeline.stages.warp import aligned_grid, aligned_levels, halved
from comir_batch.warp.resample import warp_block

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.manifest import PairRow
    from comir_batch.core.slide import SlideSpec
    from comir_batch.pipeline.layout import PairFiles
    from comir_batch.pipeline.run import EarlierRun

_CHUNK = 512
_SHARD = 2048
_BLOCK_BYTES = 2**28  # of a block of all channels, for which shards are made smaller


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written: its finest pixels, and the names of its channels."""

    grid: Grid
    channels: tuple[str, ...]


def merge(run: Path, out: Path, only: Collection[str] = ()) -> Merged:
    """Write the fixed slide and the slides that a run has aligned to it as one image of many channels.

    Block by block, in this process. The fixed slide's channels are named after its modality, the others after their
    pairs. Where the slides' integers differ in width, the widest holds all of them as they are. The moving slides need
    not be there any more: all that is said of them stands in their aligned images.

    Parameters
    ----------
    run : Path
        A run directory.
    out : Path
        OME-Zarr or OME-TIFF, as its suffix tells; it appears whole.
    only : collection of str
        Pairs to take; empty for all that have an aligned image.

    Raises
    ------
    RunDirectoryError
        If it is no run.
    ManifestError
        If the row of a pair that has an aligned image is bad.
    UserError
        If the fixed slide cannot be read, there is no such pair or image, pairs have several fixed slides or pixel
        sizes, or no type holds all pixels.
    """
    require_image_name(out)
    earlier, layout = earlier_run(run), Layout(run.resolve())
    config = RunConfig.model_validate(earlier.settings)
    rows = _chosen(earlier, layout, only)
    first = rows[0]
    own = config_of(config, read_by_hand(layout).get(first.pair_id))
    with open_slide(first.fixed) as slide:
        fixed = slide.info
    grid = aligned_grid(fixed.grid(), own.warp.mpp)
    files = {row.pair_id: layout.pair(row.pair_id) for row in rows}
    images = {name: ZarrArray.open(level_path(pair.aligned_zarr, 0)) for name, pair in files.items()}
    _require_one_grid(images, grid)
    channels = [f"{first.fixed_modality} {name}" for name in fixed.channels]
    channels += [f"{name} {channel}" for name, pair in files.items() for channel in _channels(pair)]
    dtype = _common_dtype([fixed.dtype, *(image.dtype.name for image in images.values())])
    image = NgffImage(out.name, aligned_levels(grid), tuple(channels), dtype)
    folder = out.with_name(f".{out.name}.unfinished")
    remove_tree(folder)
    try:
        _write(folder, image, first.fixed, list(images.values()))
        publish(folder, image, out)
    finally:
        remove_tree(folder)
    return Merged(grid, image.channels)


def _chosen(earlier: EarlierRun, layout: Layout, only: Collection[str]) -> list[PairRow]:
    manifest = read_manifest(earlier.manifest)
    names = {row.pair_id for row in manifest.rows}
    wanted = set(only) or {name for name in earlier.pairs if layout.pair(name).image_metadata.is_file()}
    if manifest.problems and not wanted.intersection(earlier.pairs) <= names:
        raise ManifestError(manifest.problems)
    unknown = sorted(set(only) - names)
    if unknown:
        raise UserError(f"{layout.root} has no pair {', '.join(unknown)}. Name pairs of its manifest")
    there = [row for row in manifest.rows if layout.pair(row.pair_id).image_metadata.is_file()]
    lacking = sorted(set(only) - {row.pair_id for row in there})
    if lacking or not there:
        whose = ", ".join(lacking) or "any pair"
        remedy = (
            "It is rejected (--warp-rejected), or the run was made with --no-images or --only-ome-tiff: run it without"
        )
        raise UserError(f"{layout.root} has no aligned image of {whose}. {remedy}")
    chosen = [row for row in there if not only or row.pair_id in only]
    slides = sorted({row.fixed.path.name for row in chosen})
    if len({row.fixed for row in chosen}) > 1:
        raise UserError(f"the pairs have several fixed slides: {', '.join(slides)}. Name those of one with --pair")
    return chosen


def _channels(pair: PairFiles) -> list[str]:
    """Return the names of an aligned image's channels."""
    omero = read_json(pair.image_metadata)["attributes"]["ome"]["omero"]
    return [channel["label"] for channel in omero["channels"]]


def _require_one_grid(images: dict[str, ZarrArray], grid: Grid) -> None:
    for name, image in images.items():
        if image.shape[1:] != grid.shape:
            found = f"{image.shape[2]} x {image.shape[1]} pixels, not {grid.width} x {grid.height}"
            raise UserError(f"the aligned image of {name} has {found}. Run all pairs with one --output-mpp")


def _common_dtype(names: Sequence[str]) -> str:
    common = np.result_type(*names)
    if common.itemsize > max(np.dtype(name).itemsize for name in names):  # of uint16 and int16, say
        raise UserError(f"no type holds pixels of {', '.join(sorted(set(names)))}. Convert the slides to one type")
    return str(common.name)


def _write(folder: Path, image: NgffImage, fixed: SlideSpec, aligned: Sequence[ZarrArray]) -> None:
    """Fill the arrays of all levels, the finest first."""
    count, shard = len(image.channels), _SHARD
    while shard > _CHUNK and count * shard**2 * np.dtype(image.dtype).itemsize > _BLOCK_BYTES:
        shard //= 2
    levels = [
        ZarrArray.create(
            level_path(folder, number), (count, *grid.shape), image.dtype, chunk=_CHUNK, shard=shard, apart=True
        )
        for number, grid in enumerate(image.levels)
    ]
    finest = image.levels[0]
    with open_slide(fixed) as slide:
        fill = background(slide.info.photometric, slide.info.dtype)
        for region in BlockPlan(finest.width, finest.height, shard):
            here = warp_block(slide, Composite(), finest, region, WarpConfig(), fill=fill)
            levels[0].write(region, _stacked([here, *(array.read(region) for array in aligned)], image.dtype))
    for finer, coarser, grid in zip(levels, levels[1:], image.levels[1:], strict=False):
        for region in BlockPlan(grid.width, grid.height, shard):
            coarser.write(region, halved(finer, region))


def _stacked(parts: Sequence[NDArray[np.generic]], dtype: str) -> NDArray[np.generic]:
    return np.concatenate([part.astype(dtype, copy=False) for part in parts])
