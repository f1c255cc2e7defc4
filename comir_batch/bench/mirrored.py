"""A slide of any size whose layout is made up: the pixels of a real one, laid out in mirrored tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.core.slide import Level, PixelSource, SlideInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray


class _Run(NamedTuple):
    """Neighbouring pixels of one tile along one axis: where they go, and where they come from."""

    target: slice
    start: int
    stop: int
    flipped: bool


@dataclass(frozen=True, slots=True, eq=False)
class MirroredSlide:
    """A square `PixelSource` of mirrored tiles of another one's level 0; it has no coarser levels.

    Only what a region shows is read, so memory does not grow with the side.

    Attributes
    ----------
    source : PixelSource
        Closed with this one.
    side : int
        Pixels of the square.
    """

    source: PixelSource
    side: int

    @property
    def info(self) -> SlideInfo:
        """Headers of the source, with one level of the made-up size."""
        return replace(self.source.info, levels=(Level(self.side, self.side, 1.0, 1.0),))

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region inside the square; raises ValueError if it leaves it."""
        if region.within(self.side, self.side) != region:
            raise ValueError(f"{region} leaves the square of {self.side} pixels")
        info = self.source.info
        level, out = info.levels[0], np.empty((len(info.channels), *region.shape), info.dtype)
        for rows in _runs(region.y0, region.y1, level.height):
            for columns in _runs(region.x0, region.x1, level.width):
                tile = self.source.read(Region(columns.start, rows.start, columns.stop, rows.stop))
                out[:, rows.target, columns.target] = tile[:, :: -1 if rows.flipped else 1][
                    ..., :: -1 if columns.flipped else 1
                ]
        return out

    def origins(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Return the pixels of the source, ``(N, 2)``, that lie at ``(N, 2)`` pixels ``(x, y)`` of the square."""
        level = self.source.info.levels[0]
        size = np.array([level.width, level.height])
        within = (np.asarray(pixels, dtype=np.float64) + 0.5) % (2 * size)
        return np.asarray(np.minimum(within, 2 * size - within) - 0.5)

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _runs(start: int, stop: int, size: int) -> Iterator[_Run]:
    """Cut ``start..stop`` of an axis at the borders of tiles of ``size``, every other one of which is flipped."""
    at = start
    while at < stop:
        tile, first = divmod(at, size)
        count = min(stop - at, size - first)
        target, flipped = slice(at - start, at - start + count), bool(tile % 2)
        low = size - first - count if flipped else first
        yield _Run(target, low, low + count, flipped)
        at += count
