"""The stages chunk and represent: beside a plain loop over tiles, and beside the network alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import openslide
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from comir_batch.bench.comparison import PLAIN_ZARR, Agreement, Comparison, Contender
from comir_batch.bench.mirrored import MirroredSlide
from comir_batch.core.block import BlockPlan
from comir_batch.core.config import ChunkConfig, ExecutionConfig, RepresentConfig
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import make_overview
from comir_batch.pipeline.stages import represent
from comir_batch.pipeline.stages.chunk import ChunkWork, background, chunk_blocks
from comir_batch.pipeline.working import Working
from comir_batch.representation.store import find_model
from comir_batch.training.speed import network_alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.bench.comparison import Judged
    from comir_batch.bench.material import Material
    from comir_batch.core.slide import SlideInfo

    Read = Callable[[], NDArray[np.generic]]

CHUNK, REPRESENT = "chunk", "represent"


def chunk_comparisons(material: Material) -> Iterator[Comparison]:
    """Yield the rewriting of level 0: of an OME-TIFF, and of the slide itself where OpenSlide reads it."""
    yield _chunk(material.tiff(), "OME-TIFF", "tifffile and zarr", _tifffile_loop, "a loop over the file's tiles")
    with open_slide(SlideSpec(material.slide)) as source:
        reader = source.info.reader
    if reader == "openslide":
        note = "a loop over squares of 1024 px"
        yield _chunk(material.slide, material.slide.suffix.lstrip("."), "OpenSlide and zarr", _openslide_loop, note)


def _chunk(path: Path, kind: str, name: str, loop: Callable[[Path, Path], Read], note: str) -> Comparison:
    with open_slide(SlideSpec(path)) as source:
        info = source.info
    work, grid = ChunkWork(path, SlideSpec(path), Working(info, 0, 1), 0, None, ChunkConfig()), info.grid()
    said = f"level 0 of {kind}, {grid.width} x {grid.height} px, {len(info.channels)} x {info.dtype}, as chunked Zarr"
    other = Contender(name, partial(loop, path), aim=1.5, note=f"{note}, zarr's own codecs, chunks alike, no shards")
    return Comparison(CHUNK, said, Contender("comir-batch", partial(_chunked, work)), (other,), _equal)


def _chunked(work: ChunkWork, folder: Path) -> Read:
    """Do all blocks of the stage, tissue or not, without the overview."""
    here = replace(work, folder=folder)
    info, grid = work.working.info, work.working.grid
    ZarrArray.create(
        here.files.pixels,
        (len(info.channels), *grid.shape),
        info.dtype,
        chunk=work.config.chunk,
        shard=work.config.shard,
        fill=background(info.photometric, info.dtype),
    )
    with ThreadPoolExecutor(1) as worker:  # a fresh one each time, which has no slide open yet
        list(worker.map(chunk_blocks, [(here, (region,)) for region in here.blocks]))
    return lambda: ZarrArray.open(here.files.pixels).read(Region(0, 0, grid.width, grid.height))


def _plain(folder: Path, shape: tuple[int, int, int], dtype: str) -> zarr.Array[Any]:
    side = ChunkConfig().chunk
    chunks, codec = (shape[0], side, side), ZstdCodec(level=1)
    return zarr.create_array(folder / "plain.zarr", shape=shape, chunks=chunks, dtype=dtype, compressors=codec)


def _tifffile_loop(path: Path, folder: Path) -> Read:
    with tifffile.TiffFile(path) as tiff, zarr.config.set({"codec_pipeline.path": PLAIN_ZARR}):
        pages: list[Any] = list(tiff.series[0].levels[0].pages)
        height, width = pages[0].shape[:2]
        channels = len(pages) * pages[0].samplesperpixel
        array = _plain(folder, (channels, height, width), pages[0].dtype.name)
        for first, page in enumerate(pages):
            for tile, (_, _, y, x, _), _ in page.segments():
                pixels = np.moveaxis(tile[0, : height - y, : width - x], -1, 0)
                samples, rows, columns = pixels.shape
                array[first : first + samples, y : y + rows, x : x + columns] = pixels
    return lambda: np.asarray(array[:])


def _openslide_loop(path: Path, folder: Path) -> Read:
    with openslide.OpenSlide(path) as slide, zarr.config.set({"codec_pipeline.path": PLAIN_ZARR}):
        width, height = slide.dimensions
        array = _plain(folder, (3, height, width), "uint8")
        for box in BlockPlan(width, height, 1024):
            tile = np.asarray(slide.read_region((box.x0, box.y0), 0, (box.width, box.height)))
            array[:, *box.slices] = np.moveaxis(tile[..., :3], -1, 0)
    return lambda: np.asarray(array[:])


def _equal(ours: Read, other: Read) -> Agreement:
    differ = float((ours() != other()).mean())
    return Agreement(good=differ == 0, text="pixels equal" if differ == 0 else f"{100 * differ:.3g} % of values differ")


def represent_comparisons(material: Material) -> Iterator[Comparison]:
    """Yield one comparison: the stage's blocks, read from Zarr and written to it, beside the network alone."""
    model, side = find_model(material.model), material.network_side
    modality = material.modality or model.card.modalities[0].modality
    where = inference(ExecutionConfig(executor="serial"), None)
    chunked, settings, storage = material.folder / "chunked", RepresentConfig(), ChunkConfig()
    work = represent.RepresentWork(
        chunked,
        chunked,
        Working(_write_chunked(material, chunked), 0, 1),
        model.reference,
        model.card.modality(modality),
        where,
        settings,
        storage,
    )
    alone = network_alone(model, modality, where.device, [block.shape for block in work.blocks])
    note = f"{settings.precision}, on {where.device}; random tiles with their halo, there already"
    other = Contender("the bare network", lambda _: alone(), aim=0.9, note=note)
    said = f"representation, {model.card.name}, {modality}, {side} x {side} px, from Zarr to Zarr"
    ours = Contender("comir-batch", partial(_represented, work))
    judged: Judged = "wall" if where.device == "cuda" else "cpu"
    yield Comparison(REPRESENT, said, ours, (other,), _as_many_pixels, judged)


def _write_chunked(material: Material, folder: Path) -> SlideInfo:
    """Write a square as the stage chunk leaves it, and return its headers."""
    files, storage = SlideFiles(folder), ChunkConfig()
    with MirroredSlide(open_slide(SlideSpec(material.slide)), material.network_side) as square:
        info, grid = square.info, square.info.grid()
        folder.mkdir()
        make_overview(square).save(files.overview)
        array = ZarrArray.create(
            files.pixels, (len(info.channels), *grid.shape), info.dtype, chunk=storage.chunk, shard=storage.shard
        )
        for region in BlockPlan(grid.width, grid.height, storage.shard):
            array.write(region, square.read(region))
    return info


def _represented(work: represent.RepresentWork, folder: Path) -> tuple[int, ...]:
    here = replace(work, folder=folder)
    represent.prepare(here)
    for region in here.blocks:
        represent.represent_blocks((here, (region,)))
    return ZarrArray.open(here.files.pixels).shape


def _as_many_pixels(ours: tuple[int, ...], other: Sequence[Any]) -> Agreement:
    """Tell that the network saw at least as many pixels; random tiles have no result to compare."""
    seen, wanted = sum(output.shape[-2] * output.shape[-1] for output in other), ours[-2] * ours[-1]
    return Agreement(
        seen >= wanted, f"not compared: random tiles; {len(other)} of them, {seen / 1e6:.3g} Mpx with halos"
    )
