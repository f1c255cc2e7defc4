"""Writing pyramids: OME-Zarr beside ome-zarr-py and ngff-zarr, OME-TIFF beside libvips."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tifffile
import zarr
from zarr.codecs import ZstdCodec

from comir_batch.bench.comparison import PLAIN_ZARR, Agreement, Comparison, Contender
from comir_batch.bench.slides import add_level
from comir_batch.core.block import BlockPlan
from comir_batch.core.config import WarpConfig
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import level_path
from comir_batch.pipeline.stages.warp import aligned_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.bench.material import Material
    from comir_batch.core.geometry import Grid

ZARR, TIFF = "ome-zarr", "ome-tiff"
_CODECS = {"deflate": "", "jpeg": "; quality 89, the highest at which it halves colours as our 90 does"}
_VIPS_QUALITY = 89
_TOLERANCE = 1  # level between two ways to round a mean
_JPEG_TOLERANCE = 3.0  # levels in the mean between two lossy encoders


class Written(NamedTuple):
    """A pyramid on disk: opens one level as ``(C, Y, X)``, and knows how many there are."""

    levels: int
    read: Callable[[int], NDArray[np.generic]]


def zarr_comparisons(material: Material) -> Iterator[Comparison]:
    """Yield one comparison: pixels in memory become an OME-Zarr 0.5 with all its levels."""
    config, ours = WarpConfig(), Contender("comir-batch", partial(_ours_zarr, material))
    layout = f"chunks of {config.chunk}, shards of {config.shard} px, Zstandard 1, halved by means"
    others = (
        Contender("ome-zarr-py write_image", partial(_ome_zarr_py, material), "ome_zarr", 2.0, "local_mean"),
        Contender("ngff-zarr", partial(_ngff_zarr, material), "ngff_zarr", 1.0, "DASK_BIN_SHRINK, its own codec"),
    )
    yield Comparison(ZARR, f"OME-Zarr pyramid, {material.said}, {layout}", ours, others, _agree_zarr)


def _halvings(grid: Grid) -> list[int]:
    return [2**number for number in range(1, len(aligned_levels(grid)))]


def _ours_zarr(material: Material, folder: Path) -> Written:
    """Write as the stages warp and export do."""
    config, levels, info = WarpConfig(), aligned_levels(material.grid), material.info
    image = NgffImage("square", levels, info.channels, info.dtype, is_rgb=info.is_rgb)
    arrays = [
        ZarrArray.create(
            level_path(folder, number),
            (len(info.channels), *grid.shape),
            info.dtype,
            chunk=config.chunk,
            shard=config.shard,
        )
        for number, grid in enumerate(levels)
    ]
    for region in BlockPlan(material.side, material.side, config.shard):
        arrays[0].write(region, material.pixels[:, *region.slices])
    for finer, coarser in pairwise(arrays):
        add_level(finer, coarser)
    write_ngff_metadata(folder, image)
    return _opened(folder, [str(number) for number in range(len(levels))])


def _ome_zarr_py(material: Material, folder: Path) -> Written:
    from ome_zarr.scale import Methods  # noqa: PLC0415  need not be installed
    from ome_zarr.writer import write_image  # noqa: PLC0415

    config, count = WarpConfig(), len(material.pixels)
    options = {
        "chunks": (count, config.chunk, config.chunk),
        "shards": (count, config.shard, config.shard),
        "compressors": ZstdCodec(level=1),
    }
    factors, path = _halvings(material.grid), folder / "image.zarr"
    with zarr.config.set({"codec_pipeline.path": PLAIN_ZARR}):
        write_image(
            material.pixels,
            str(path),
            scale_factors=factors,
            axes=["c", "y", "x"],
            method=Methods.LOCAL_MEAN,
            storage_options=options,
        )
    return _opened(path, [f"s{number}" for number in range(len(factors) + 1)])


def _ngff_zarr(material: Material, folder: Path) -> Written:
    import ngff_zarr  # noqa: PLC0415  need not be installed

    config, grid, path = WarpConfig(), material.grid, folder / "image.zarr"
    scale = {"c": 1.0, "y": grid.mpp_y, "x": grid.mpp_x}
    image = ngff_zarr.to_ngff_image(material.pixels, dims=["c", "y", "x"], scale=scale)
    chunks = {"c": len(material.pixels), "y": config.chunk, "x": config.chunk}
    factors = _halvings(grid)
    scales = ngff_zarr.to_multiscales(
        image, scale_factors=factors, method=ngff_zarr.Methods.DASK_BIN_SHRINK, chunks=chunks, cache=False
    )
    shards = {"c": 1, "y": config.shard // config.chunk, "x": config.shard // config.chunk}
    ngff_zarr.to_ngff_zarr(str(path), scales, version="0.5", chunks_per_shard=shards)
    return _opened(path, [f"scale{number}/image" for number in range(len(factors) + 1)])


def _opened(path: Path, names: list[str]) -> Written:
    return Written(len(names), lambda level: np.asarray(zarr.open_array(path / names[level], mode="r")[:]))


def _agree_zarr(ours: Written, other: Written) -> Agreement:
    """Ask for the same finest pixels and, beside rounding, the same next level, up to a last row that others drop."""
    if not np.array_equal(ours.read(0), other.read(0)):
        return Agreement(good=False, text="other finest pixels")
    if ours.levels == 1:
        return Agreement(good=ours.levels == other.levels, text=f"finest pixels equal, {other.levels} levels")
    mine, its = ours.read(1).astype(np.float64), other.read(1).astype(np.float64)
    height, width = (min(a, b) for a, b in zip(mine.shape[1:], its.shape[1:], strict=True))
    largest = float(np.abs(mine[:, :height, :width] - its[:, :height, :width]).max())
    text = f"finest pixels equal, next level within {largest:.3g}, {other.levels} levels"
    return Agreement(largest <= _TOLERANCE and ours.levels == other.levels, text)


def tiff_comparisons(material: Material) -> Iterator[Comparison]:
    """Yield a comparison for each codec: full-resolution pixels become a pyramidal OME-TIFF."""
    finest = _finest(material)
    interleaved = material.interleaved()
    for codec, coded in _CODECS.items():
        if codec == "jpeg" and material.info.dtype != "uint8":
            continue
        ours = Contender("comir-batch", partial(_ours_tiff, material, finest, codec))
        note = f"from memory; ours from Zarr, coarser levels counted{coded}"
        vips = Contender("libvips tiffsave", partial(_vips_tiff, interleaved, codec), "pyvips", 0.8, note)
        work = f"pyramidal OME-TIFF, {material.said}, {codec}, tiles of 512 px"
        yield Comparison(TIFF, work, ours, (vips,), partial(_agree_tiff, codec))


def _finest(material: Material) -> ZarrArray:
    """Return the finest level as the stage warp leaves it."""
    config = WarpConfig()
    array = ZarrArray.create(
        level_path(material.folder / "finest", 0),
        (len(material.info.channels), *material.grid.shape),
        material.info.dtype,
        chunk=config.chunk,
        shard=config.shard,
    )
    for region in BlockPlan(material.side, material.side, config.shard):
        array.write(region, material.pixels[:, *region.slices])
    return array


def _ours_tiff(material: Material, finest: ZarrArray, codec: str, folder: Path) -> Written:
    arrays = [finest]
    for number, grid in enumerate(aligned_levels(material.grid)[1:], start=1):
        shape = (finest.shape[0], *grid.shape)
        arrays.append(
            ZarrArray.create(level_path(folder, number), shape, finest.dtype, chunk=finest.chunk, shard=finest.shard)
        )
        add_level(*arrays[-2:])
    out, info = folder / "image.ome.tif", material.info
    write_ome_tiff(arrays, out, TiffImage("square", material.grid, info.channels, info.is_rgb), codec)
    return _opened_tiff(out)


def _vips_tiff(interleaved: NDArray[np.generic], codec: str, folder: Path) -> Written:
    import pyvips  # noqa: PLC0415  need not be installed

    out = folder / "image.ome.tif"
    coding: dict[str, Any] = {"compression": "jpeg", "Q": _VIPS_QUALITY}
    if codec == "deflate":
        coding = {"compression": "deflate", "level": 6, "predictor": "horizontal"}
    layout = {"tile": True, "tile_width": 512, "tile_height": 512, "pyramid": True, "subifd": True, "bigtiff": True}
    pyvips.Image.new_from_array(interleaved).tiffsave(str(out), **layout, **coding, region_shrink="mean")
    return _opened_tiff(out)


def _opened_tiff(path: Path) -> Written:
    with tifffile.TiffFile(path) as tiff:
        levels = 1 + len(tiff.pages.first.subifds or ())

    def read(level: int) -> NDArray[np.generic]:
        pixels = tifffile.imread(path, series=0, level=level)
        return np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]

    return Written(levels, read)


def _agree_tiff(codec: str, ours: Written, other: Written) -> Agreement:
    mean = float(np.abs(ours.read(0).astype(np.float32) - other.read(0).astype(np.float32)).mean())
    text = (
        f"finest pixels {'equal' if mean == 0 else f'differ by {mean:.2g} levels in the mean'}, {other.levels} levels"
    )
    return Agreement(mean <= (_JPEG_TOLERANCE if codec == "jpeg" else 0) and ours.levels == other.levels, text)
