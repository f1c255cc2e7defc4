"""The moving image at the resolution that the fixed grid asks for: not finer, which aliases, and not coarser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.geometry import Grid, Region
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from comir_batch.core.slide import PixelSource, SlideInfo
    from comir_batch.core.transform import Composite

_SLACK = 1.05  # a level this much too coarse is still taken: scales are never exactly 1


@dataclass(frozen=True, slots=True)
class MovingImage:
    """A pyramid level, averaged further where the pyramid has none that is coarse enough.

    Attributes
    ----------
    read : callable
        Takes a region of the level, inside it, and returns ``(C, Y, X)``.
    level_grid : Grid
        The level's pixels in µm.
    level : int
        Pyramid level.
    factor : int
        Pixels of the level, along each axis, that are averaged to one.
    channels : int
        Number of channels.
    dtype : str
        Numpy name of the pixels' type.
    """

    read: Callable[[Region], NDArray[np.generic]]
    level_grid: Grid
    level: int
    factor: int
    channels: int
    dtype: str

    @classmethod
    def of_slide(cls, slide: PixelSource, scale: float, *, average: bool) -> MovingImage:
        """Choose the level for a result whose pixels span ``scale`` level-0 pixels."""
        info = slide.info
        level, factor = choose_level(info, scale)
        return cls(slide.read, info.grid(level), level, factor if average else 1, len(info.channels), info.dtype)

    @classmethod
    def of_array(cls, pixels: NDArray[np.generic], grid: Grid, scale: float) -> MovingImage:
        """Wrap a ``(C, Y, X)`` array in memory."""
        factor = max(int(scale * _SLACK), 1)
        return cls(lambda region: pixels[:, *region.slices], grid, 0, factor, len(pixels), pixels.dtype.name)

    @property
    def grid(self) -> Grid:
        """Pixels after averaging."""
        return self.level_grid.reduced(self.factor)

    def pixels(self, footprint: Region) -> NDArray[np.generic]:
        """Return ``(C, Y, X)`` pixels of a region of ``grid``.

        Raises
        ------
        ValueError
            If the region lies wholly outside the image.
        """
        x0, y0, x1, y1 = (side * self.factor for side in (footprint.x0, footprint.y0, footprint.x1, footprint.y1))
        wanted = Region(x0, y0, x1, y1, self.level).within(self.level_grid.width, self.level_grid.height)
        if wanted is None:
            raise ValueError(f"{footprint} lies outside the moving image")
        return reduce_area(self.read(wanted), self.factor)


def choose_level(info: SlideInfo, scale: float) -> tuple[int, int]:
    """Return the pyramid level to read, and how many of its pixels along each axis to average.

    Parameters
    ----------
    info : SlideInfo
        Levels, finest first.
    scale : float
        Level-0 pixels that one pixel of the result spans.
    """
    downsamples = [max(level.downsample_x, level.downsample_y) for level in info.levels]
    level = max((k for k, downsample in enumerate(downsamples) if downsample <= scale * _SLACK), default=0)
    return level, max(int(scale * _SLACK / downsamples[level]), 1)


def pixel_scale(transform: Composite, fixed: Grid, moving: Grid) -> float:
    """Return how many moving pixels one fixed pixel spans along an axis: the median over the fixed grid.

    One figure for the whole grid, so that neighbouring regions are equally sharp.
    """
    across, down = np.linspace(0, fixed.width - 1, 17), np.linspace(0, fixed.height - 1, 17)
    points = fixed.to_um(np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2))
    area = np.median(np.abs(transform.jacobian_determinant(points, min(fixed.mpp_x, fixed.mpp_y))))
    return float(np.sqrt(area * fixed.mpp_x * fixed.mpp_y / (moving.mpp_x * moving.mpp_y)))
