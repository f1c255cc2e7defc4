"""The overview of a slide: a thumbnail and the tissue mask on it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.geometry import Grid, Region
from comir_batch.pipeline.files import read_arrays, write_arrays
from comir_batch.quality.tissue import tissue_mask
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.slide import PixelSource, SlideInfo

_SIDE = 1024
_SMALLEST = 512
_STRIP_PIXELS = 16_000_000


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


def make_overview(source: PixelSource) -> Overview:
    """Read a slide's coarsest level that still shows tissue, strip by strip, and find the tissue on it."""
    info = source.info
    level = _overview_level(info)
    grid = info.grid(level)
    factor = -(-max(grid.width, grid.height) // _SIDE)
    rows = max(factor, _STRIP_PIXELS // grid.width // factor * factor)
    strips = [
        reduce_area(source.read(Region(0, y, grid.width, min(y + rows, grid.height), level)), factor)
        for y in range(0, grid.height, rows)
    ]
    pixels = np.concatenate(strips, axis=1)
    return Overview(pixels, tissue_mask(pixels, info.photometric), grid.reduced(factor))


def _overview_level(info: SlideInfo) -> int:
    large_enough = [k for k, level in enumerate(info.levels) if max(level.width, level.height) >= _SMALLEST]
    return max(large_enough, default=0)
