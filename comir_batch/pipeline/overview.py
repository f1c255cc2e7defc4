"""The overview of a slide: a thumbnail and the tissue mask on it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.geometry import Grid, Region
from comir_batch.pipeline.files import read_arrays, write_arrays
from comir_batch.pipeline.strips import read_reduced, strip_mb
from comir_batch.quality.tissue import tissue_mask

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.slide import PixelSource, SlideInfo

_SIDE = 1024
_SMALLEST = 512


@dataclass(frozen=True, eq=False)
class Overview:
    """A slide at a glance.

    Attributes
    ----------
    pixels : (C, Y, X)
        Thumbnail of at most 1024 pixels a side, in the slide's dtype.
    tissue : (Y, X) bool
        Where there is tissue.
    grid : Grid
        Of both.
    """

    pixels: NDArray[np.generic]
    tissue: NDArray[np.bool_]
    grid: Grid

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        write_arrays(path, pixels=self.pixels, tissue=self.tissue, grid=np.array(astuple(self.grid)))

    @classmethod
    def load(cls, path: Path) -> Overview:
        """Read from an .npz file."""
        arrays: dict[str, Any] = read_arrays(path)
        width, height, *rest = arrays["grid"].tolist()
        return cls(arrays["pixels"], arrays["tissue"], Grid(int(width), int(height), *rest))


def make_overview(source: PixelSource, drawn: NDArray[np.bool_] | None = None) -> Overview:
    """Read a slide's coarsest level that still shows tissue, strip by strip, and find the tissue on it.

    Parameters
    ----------
    source : PixelSource
        The slide.
    drawn : (Y, X) bool or None
        The user's mask, which stands in for the tissue that would be found; it covers the whole slide, whatever its
        own size.
    """
    info = source.info
    level = _overview_level(info)
    grid = info.grid(level)
    factor = -(-max(grid.width, grid.height) // _SIDE)
    whole = Region(0, 0, grid.width, grid.height, level)
    pixels = read_reduced(source.read, whole, factor, info.pixel_bytes)
    tissue = (
        tissue_mask(np.nan_to_num(pixels), info.photometric)
        if drawn is None
        else lay_on(drawn, info, grid.reduced(factor))
    )
    return Overview(pixels, tissue & np.isfinite(pixels).all(axis=0), grid.reduced(factor))


def lay_on(drawn: NDArray[np.bool_], info: SlideInfo, grid: Grid) -> NDArray[np.bool_]:
    """Return a drawn mask, which covers the whole slide whatever its own size, on one of the slide's grids."""
    level0, (height, width) = info.grid(), drawn.shape
    return sample_nearest(drawn, level0.coarser(level0.width / width, level0.height / height, width, height), grid)


def sample_nearest(pixels: NDArray[np.bool_], grid: Grid, target: Grid) -> NDArray[np.bool_]:
    """Sample a ``(Y, X)`` image at the pixel centres of another grid by its nearest pixel, its border continued."""
    ends = grid.to_pixels(target.to_um([[0, 0], [target.width - 1, target.height - 1]]))
    columns = np.linspace(ends[0, 0], ends[1, 0], target.width).round().astype(int).clip(0, grid.width - 1)
    rows = np.linspace(ends[0, 1], ends[1, 1], target.height).round().astype(int).clip(0, grid.height - 1)
    return np.asarray(pixels[rows[:, None], columns])


def overview_mb(info: SlideInfo) -> int:
    """Return the most memory in MB that making an overview takes, libraries not counted."""
    grid, pixel = info.grid(_overview_level(info)), info.pixel_bytes
    factor = -(-max(grid.width, grid.height) // _SIDE)
    # The tissue mask works on float32 planes of the thumbnail.
    return strip_mb(grid.width, factor, pixel) + int(_SIDE**2 * (2 * pixel + 8 * 4 * len(info.channels)) / 1e6) + 50


def overview_read_mb(info: SlideInfo) -> float:
    """Return how many MB of decoded pixels making an overview reads."""
    grid = info.grid(_overview_level(info))
    return grid.width * grid.height * info.pixel_bytes / 1e6


def overview_disk_mb(info: SlideInfo) -> float:
    """Return the size in MB of an overview before compression."""
    grid = info.grid(_overview_level(info))
    small = grid.reduced(-(-max(grid.width, grid.height) // _SIDE))
    return small.width * small.height * (info.pixel_bytes + 1) / 1e6


def _overview_level(info: SlideInfo) -> int:
    large_enough = [k for k, level in enumerate(info.levels) if max(level.width, level.height) >= _SMALLEST]
    return max(large_enough, default=0)
