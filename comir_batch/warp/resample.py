"""Resampling the moving image on the fixed grid, one region at a time.

The fixed grid is cut into cells at fixed places. Every decision (lattice step, pieces, origins) is a cell's own, so the
pixels of a region do not depend on the region that was asked for, and memory does not depend on the slide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from comir_batch.core.errors import TaskError
from comir_batch.core.geometry import Grid, Region
from comir_batch.warp.affine_map import AffineMap
from comir_batch.warp.lattice import CoordinateMap, RegionMap, coordinate_map
from comir_batch.warp.source import MovingImage, pixel_scale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.config import WarpConfig
    from comir_batch.core.slide import PixelSource
    from comir_batch.core.transform import Composite

CELL = 1024
_MAX_FOOTPRINT_PIXELS, _MAX_FOOTPRINT_SIDE = 2**22, 8192  # read at once; OpenCV refuses sides from 32767 on
_MAX_ERROR_PX = 0.02  # of arrays in memory
_METHODS = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
_COMPUTED_AS = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "int16": np.float32,  # OpenCV interpolates int16 and float64 at 32nds of a pixel, and twice as slowly
    "float32": np.float32,
    "float64": np.float64,
    "int8": np.float32,
    "float16": np.float32,
    "uint32": np.float64,
    "int32": np.float64,
}


def warp_block(
    moving: PixelSource,
    transform: Composite,
    fixed_grid: Grid,
    region: Region,
    config: WarpConfig,
    *,
    fill: float,
    labels: bool = False,
) -> NDArray[np.generic]:
    """Return the moving slide on a region of the fixed grid.

    The pyramid level is the coarsest that is not coarser than the fixed grid seen through the transform, the same for
    all of the grid; where levels are missing the pixels are averaged first, except for nearest neighbours.

    Parameters
    ----------
    moving : PixelSource
        Only the footprint of the region is read, piece by piece.
    transform : Composite
        Fixed to moving, in µm.
    fixed_grid : Grid
        Pixels of the result.
    region : Region
        Half-open box of ``fixed_grid``; its level is not looked at.
    config : WarpConfig
        Interpolation and the error that the coordinate lattice may make.
    fill : float
        Value of every channel where there is no moving pixel: white for brightfield, 0 for dark images.
    labels : bool
        Whether only pixels of level 0 may be read, because those of coarser levels may be means of labels.

    Returns
    -------
    (C, region.height, region.width) array
        In the moving slide's dtype.

    Raises
    ------
    TaskError
        If the slide's dtype cannot be interpolated.
    """
    scale = 1.0 if labels else pixel_scale(transform, fixed_grid, moving.info.grid())
    image = MovingImage.of_slide(moving, scale, average=config.interpolation != "nearest")
    warp = _Warp(image, transform, fixed_grid, config.interpolation, config.max_lattice_error_px, fill)
    return warp.block(region)


def warp_array(
    pixels: NDArray[np.generic], grid: Grid, transform: Composite, target: Grid, *, fill: float = 0.0
) -> NDArray[np.generic]:
    """Return a small image in memory on another grid, linearly interpolated: thumbnails for reports and scores.

    Parameters
    ----------
    pixels : (C, Y, X) array
        The moving image.
    grid, target : Grid
        Its pixels in the moving slide's µm, and those of the result in the fixed slide's.
    transform : Composite
        Fixed to moving, in µm.
    fill : float
        Value where there is no moving pixel.

    Returns
    -------
    (C, target.height, target.width) array
        In the dtype of ``pixels``.

    Raises
    ------
    TaskError
        If the dtype cannot be interpolated.
    """
    image = MovingImage.of_array(pixels, grid, pixel_scale(transform, target, grid))
    warp = _Warp(image, transform, target, "linear", _MAX_ERROR_PX, fill)
    return warp.block(Region(0, 0, target.width, target.height))


def memory_mb(region: Region, channels: int, dtype: str) -> int:
    """Return an upper bound, in MB, of what ``warp_block`` allocates; it does not depend on the slides.

    Parameters
    ----------
    region : Region
        Pixels of the result.
    channels : int
        Of the moving slide.
    dtype : str
        Of the moving slide.
    """
    pixel = channels * np.dtype(dtype).itemsize
    result = region.width * region.height * pixel
    footprint = _MAX_FOOTPRINT_PIXELS * (3 * pixel + 8)  # decoder's copy, as read, averaged; one channel's work
    coordinates = CELL * CELL * 48
    return int((result + footprint + coordinates) / 1e6) + 1


@dataclass(frozen=True, slots=True)
class _Warp:
    image: MovingImage
    transform: Composite
    fixed: Grid
    interpolation: Literal["nearest", "linear", "cubic"]
    max_error_px: float
    fill: float

    def __post_init__(self) -> None:
        if self.image.dtype not in _COMPUTED_AS:
            known = ", ".join(_COMPUTED_AS)
            raise TaskError(f"cannot warp {self.image.dtype} pixels: convert the moving slide to one of {known}")

    def block(self, region: Region) -> NDArray[np.generic]:
        out = np.full((self.image.channels, *region.shape), self.fill, dtype=self.image.dtype)
        at = Region(region.x0, region.y0, region.x1, region.y1)
        for cell in _cells(at, self.fixed):
            places = self._places(cell)
            for piece in _pieces(places, Region(0, 0, cell.width, cell.height), self.image.factor):
                wanted = piece.shifted(cell.x0, cell.y0).intersection(at)
                if wanted is not None:
                    target = out[:, *wanted.shifted(-at.x0, -at.y0).slices]
                    self._fill(target, places, wanted.shifted(-cell.x0, -cell.y0))
        return out

    def _places(self, cell: Region) -> AffineMap | CoordinateMap:
        if self.interpolation != "nearest" and self.transform.is_affine:
            affine = AffineMap.of(RegionMap(self.transform, self.fixed, self.image.grid, cell))
            if _is_small(affine.bounds(Region(0, 0, 1, 1)), self.image.factor):
                return affine
        return coordinate_map(self.transform, self.fixed, cell, self.image.grid, self.max_error_px)

    def _fill(self, out: NDArray[np.generic], places: AffineMap | CoordinateMap, piece: Region) -> None:
        """Write the moving image at a piece of a cell's coordinates; what lies outside it stays."""
        box = places.bounds(piece)
        footprint = box.within(self.image.grid.width, self.image.grid.height)
        if footprint is None:
            return
        sampled = places.sampler(piece, footprint, _METHODS[self.interpolation])
        outside = None if footprint == box else places.outside(piece, self.image.grid)
        for channel, pixels in enumerate(self.image.pixels(footprint)):
            work = np.ascontiguousarray(pixels, dtype=_COMPUTED_AS[self.image.dtype])
            warped = converted(sampled(work), self.image.dtype)
            if outside is not None:
                warped[outside] = self.fill
            out[channel] = warped


def _cells(region: Region, grid: Grid) -> Iterator[Region]:
    """Yield the cells of a grid that a region touches, whole, clipped to the grid only."""
    for y in range(region.y0 // CELL * CELL, region.y1, CELL):
        for x in range(region.x0 // CELL * CELL, region.x1, CELL):
            cell = Region(x, y, x + CELL, y + CELL).within(grid.width, grid.height)
            if cell is not None:
                yield cell


def _pieces(places: AffineMap | CoordinateMap, region: Region, factor: int) -> Iterator[Region]:
    """Yield the region, quartered until what must be read for a piece at once is small enough."""
    if _is_small(places.bounds(region), factor) or region.width * region.height == 1:
        yield region
        return
    x, y = region.x0 + (region.width + 1) // 2, region.y0 + (region.height + 1) // 2
    for x0, x1 in ((region.x0, x), (x, region.x1)):
        for y0, y1 in ((region.y0, y), (y, region.y1)):
            if x0 < x1 and y0 < y1:
                yield from _pieces(places, Region(x0, y0, x1, y1), factor)


def _is_small(footprint: Region, factor: int) -> bool:
    width, height = footprint.width * factor, footprint.height * factor
    return width * height <= _MAX_FOOTPRINT_PIXELS and max(width, height) <= _MAX_FOOTPRINT_SIDE


def converted(warped: NDArray[Any], dtype: str) -> NDArray[np.generic]:
    """Return pixels in a slide's dtype; integers are rounded and kept in range, where cubic overshoots."""
    if warped.dtype.name == dtype:
        return warped
    if np.dtype(dtype).kind == "f":
        return warped.astype(dtype)
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(warped), limits.min, limits.max).astype(dtype))
