"""Pyramidal OME-TIFF, streamed from sharded arrays: memory does not grow with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Region
from comir_batch.io.whole import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.io.zarr_array import ZarrArray

_TILES_AT_ONCE = 8
_CLASSIC_LIMIT = 2**32 - 2**27
_JPEG_QUALITY = 90
_COMPRESSION: dict[str, dict[str, Any]] = {
    "deflate": {"compression": "zlib", "compressionargs": {"level": 6}, "predictor": True},
    "zstd": {"compression": "zstd", "compressionargs": {"level": 1}, "predictor": True},
    "jpeg": {"compression": "jpeg", "compressionargs": {"level": _JPEG_QUALITY}},
    "none": {},
}


@dataclass(frozen=True, slots=True)
class TiffImage:
    """What an OME-TIFF says of its image.

    Attributes
    ----------
    name : str
        Of the image.
    grid : Grid
        Pixels of the finest level. TIFF has no place for its origin.
    channels : tuple of str
        Their names.
    is_rgb : bool
        Whether they are red, green and blue of one colour image.
    uuid : UUID or None
        Of the file; a new one by default, so that no two files are the same to the byte.
    """

    name: str
    grid: Grid
    channels: tuple[str, ...]
    is_rgb: bool = False
    uuid: UUID | None = None


def write_ome_tiff(levels: Sequence[ZarrArray], out: Path, image: TiffImage, compression: str) -> None:
    """Write a pyramid as OME-TIFF; the file appears whole, by a rename.

    RGB becomes one page of interleaved samples, other images one page a channel; coarser levels are SubIFDs of their
    page. OME-XML has the pixel size and the channels' names, and every page has resolution tags. OME-TIFF has no
    float16: it is stored as float32. Files that could exceed 4 GB are BigTIFF.

    Parameters
    ----------
    levels : sequence of ZarrArray
        ``(C, Y, X)``, the finest first.
    out : Path
        The file; its folder must exist.
    image : TiffImage
        What the file says of it.
    compression : {"deflate", "jpeg", "zstd", "none"}
        ``jpeg`` (quality 90) is lossy.

    Raises
    ------
    ConfigError
        If JPEG is asked for pixels that are not 8-bit.
    """
    _require_8_bit_for_jpeg(out, levels[0], compression)
    finest = {"subifds": len(levels) - 1, "metadata": _metadata(image)}
    coarser = {"subfiletype": 1, "metadata": None}
    big = _bytes(levels) > _CLASSIC_LIMIT
    with whole_file(out) as partial, tifffile.TiffWriter(partial, bigtiff=big, ome=True) as writer:
        for index, level in enumerate(levels):
            tags = _COMPRESSION[compression] | (coarser if index else finest) | _layout(level, is_rgb=image.is_rgb)
            resolution = _resolution(image.grid, levels[0], level)
            writer.write(_tiles(level, is_rgb=image.is_rgb), resolution=resolution, resolutionunit="CENTIMETER", **tags)


def _require_8_bit_for_jpeg(out: Path, level: ZarrArray, compression: str) -> None:
    if compression == "jpeg" and level.dtype != np.uint8:
        raise ConfigError(f"{out}: JPEG holds 8-bit pixels, not {level.dtype}. Set tiff_compression to deflate")


def _bytes(levels: Sequence[ZarrArray]) -> int:
    """Return the size of all pixels before compression."""
    return sum(int(np.prod(level.shape)) * _stored(level).itemsize for level in levels)


def _stored(level: ZarrArray) -> np.dtype[Any]:
    return np.dtype(np.float32) if level.dtype == np.float16 else level.dtype


def _layout(level: ZarrArray, *, is_rgb: bool) -> dict[str, Any]:
    """Return what tifffile needs to know of the tiles that it is given."""
    channels, height, width = level.shape
    layout = {"dtype": _stored(level), "tile": (_tile(level), _tile(level))}
    if is_rgb:
        return layout | {"shape": (height, width, channels), "photometric": "rgb", "planarconfig": "contig"}
    return layout | {"shape": level.shape, "photometric": "minisblack"}


def _metadata(image: TiffImage) -> dict[str, Any]:
    return {
        "axes": "YXS" if image.is_rgb else "CYX",
        "Name": image.name,
        "PhysicalSizeX": image.grid.mpp_x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": image.grid.mpp_y,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": "RGB" if image.is_rgb else list(image.channels)},
        **({"UUID": image.uuid.urn} if image.uuid else {}),
    }


def _resolution(grid: Grid, finest: ZarrArray, level: ZarrArray) -> tuple[float, float]:
    """Return pixels per centimetre along x and y."""
    (_, height, width), (_, level_height, level_width) = finest.shape, level.shape
    return 1e4 / grid.mpp_x * level_width / width, 1e4 / grid.mpp_y * level_height / height


def _tile(level: ZarrArray) -> int:
    """Return the side of a tile: the chunk's, so that each chunk is decoded once; TIFF wants multiples of 16."""
    return level.chunk if level.chunk % 16 == 0 else 512


def _tiles(level: ZarrArray, *, is_rgb: bool) -> Iterator[NDArray[np.generic]]:
    """Yield the tiles of each page in TIFF's order, from a few tiles at once; the last ones may be smaller."""
    if is_rgb:
        for strip in _strips(level):
            yield from map(_interleaved, _cut(strip, _tile(level)))
        return
    for channel in range(level.shape[0]):
        for strip in _strips(level):
            yield from map(np.ascontiguousarray, _cut(strip[channel], _tile(level)))


def _strips(level: ZarrArray) -> Iterator[NDArray[np.generic]]:
    _, height, width = level.shape
    side = _tile(level)
    for y in range(0, height, side):
        for x in range(0, width, side * _TILES_AT_ONCE):
            strip = level.read(Region(x, y, min(x + side * _TILES_AT_ONCE, width), min(y + side, height)))
            yield strip.astype(_stored(level), copy=False)


def _cut(strip: NDArray[np.generic], side: int) -> Iterator[NDArray[np.generic]]:
    for x in range(0, strip.shape[-1], side):
        yield strip[..., x : x + side]


def _interleaved(tile: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return ``(Y, X, C)`` of ``(C, Y, X)``."""
    # Channel by channel is four times as quick as a contiguous copy of the turned axes.
    pixels = np.empty((*tile.shape[1:], len(tile)), tile.dtype)
    for index, channel in enumerate(tile):
        pixels[..., index] = channel
    return pixels
