"""Part of a slide as if it were the slide: nothing outside can be read, so that what is held out stays unseen."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from comir_batch.core.errors import SlideError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.core.slide import Level, PixelSource, SlideInfo


class Box(NamedTuple):
    """A half-open part of a slide in µm: the pixels whose centres lie in ``[x0, x1) x [y0, y1)``."""

    x0: float = 0.0
    y0: float = 0.0
    x1: float = inf
    y1: float = inf


WHOLE = Box()


class Window:
    """A PixelSource that shows part of another, with those levels on whose pixels the part begins.

    Parameters
    ----------
    source : PixelSource
        The slide; closed with the window.
    box : Box
        Which part.

    Raises
    ------
    SlideError
        If the part has no pixels.
    """

    def __init__(self, source: PixelSource, box: Box) -> None:
        self._source = source
        info = source.info
        base = info.levels[0]
        self._x0, x1 = _pixels(box.x0, box.x1, info.mpp_x, base.width)
        self._y0, y1 = _pixels(box.y0, box.y1, info.mpp_y, base.height)
        if x1 <= self._x0 or y1 <= self._y0:
            raise SlideError(f"{box} has no pixels of a slide of {info.grid().size_um} µm; choose a larger part")
        levels = tuple(self._cut(level, x1, y1) for level in takewhile(self._begins, info.levels))
        self.info: SlideInfo = replace(info, levels=levels)

    @property
    def origin_um(self) -> NDArray[np.float64]:
        """Place ``(x, y)`` of the window's first pixel in the slide's µm."""
        return np.array([self._x0 * self.info.mpp_x, self._y0 * self.info.mpp_y])

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region of the window's level."""
        level = self.info.levels[region.level]
        if region.within(level.width, level.height) != region:
            raise ValueError(f"{region} leaves the window of {level.width} x {level.height} pixels")
        return self._source.read(region.shifted(*self._start(level)))

    def close(self) -> None:
        """Close the slide."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _start(self, level: Level) -> tuple[int, int]:
        return round(self._x0 / level.downsample_x), round(self._y0 / level.downsample_y)

    def _begins(self, level: Level) -> bool:
        x, y = self._x0 / level.downsample_x, self._y0 / level.downsample_y
        return abs(x - round(x)) < 0.01 and abs(y - round(y)) < 0.01

    def _cut(self, level: Level, x1: int, y1: int) -> Level:
        x0, y0 = self._start(level)
        right, bottom = min(int(x1 / level.downsample_x), level.width), min(int(y1 / level.downsample_y), level.height)
        return replace(level, width=max(right - x0, 1), height=max(bottom - y0, 1))


def _pixels(start: float, stop: float, mpp: float, size: int) -> tuple[int, int]:
    """Return the half-open range of pixels whose centres lie in ``[start, stop)`` µm."""
    first = max(ceil(start / mpp - 1e-6), 0)
    return first, size if stop == inf else min(ceil(stop / mpp - 1e-6), size)
