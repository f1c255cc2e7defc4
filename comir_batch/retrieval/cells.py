"""Small, band-passed copies of representations: what is compared first.

A representation is averaged over cells of `CELL` pixels, with its mask; coarser cells average these. Networks of
two modalities agree least in the finest detail, and slow changes of brightness agree by chance with many a place, with
the border of the tissue most of all. So cells are compared without what changes over more than a few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.core.geometry import Region

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

CELL = 4
"""Pixels of the working level along each side of the finest cells."""
_BAND_CELLS = 4.0
_ROWS = 1024  # pixels that are read at once
_INSIDE = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Means of a representation over square cells.

    Attributes
    ----------
    values : (Y, X) float32
        Means over what counts in each cell; zero where there is none.
    weight : (Y, X) float32
        Share of each cell that counts.
    side : int
        Pixels of the working level along each side of a cell.
    """

    values: Plane
    weight: Plane
    side: int = CELL

    @classmethod
    def of(cls, pixels: Plane, mask: NDArray[np.bool_]) -> Cells:
        """Return the finest cells of a ``(Y, X)`` representation and its mask; a last incomplete cell is filled up."""
        inside = mask.astype(np.float32)
        weight = _means(inside, CELL)
        total = _means(np.where(mask, pixels, np.float32(0)), CELL)
        return cls(np.where(weight > 0, total / np.maximum(weight, 1e-6), 0).astype(np.float32), weight)

    def coarser(self, factor: int) -> Cells:
        """Return cells so many times as large."""
        if factor == 1:
            return self
        weight, total = _means(self.weight, factor), _means(self.values * self.weight, factor)
        values = np.where(weight > 0, total / np.maximum(weight, 1e-6), 0).astype(np.float32)
        return Cells(values, weight, self.side * factor)

    def banded(self) -> Plane:
        """Return the values less their local mean over some four cells; zero where less than half of a cell counts."""
        weight = cv2.GaussianBlur(self.weight, (0, 0), _BAND_CELLS, borderType=cv2.BORDER_CONSTANT)
        total = cv2.GaussianBlur(self.values * self.weight, (0, 0), _BAND_CELLS, borderType=cv2.BORDER_CONSTANT)
        inside = self.weight > _INSIDE
        return np.where(inside, self.values - total / np.maximum(weight, 1e-3), 0).astype(np.float32)


def represented_mask(pixels: Plane) -> NDArray[np.bool_]:
    """Return where a slide is represented: everywhere but in blocks far from its tissue, which are zero.

    Not its tissue mask, which follows dark gaps between cells and left 15 % of a field of TRITC. Gaps tell as much of a
    place as tissue does.
    """
    return np.asarray(np.isfinite(pixels) & (pixels != 0))


def read_cells(read: Callable[[Region], NDArray[np.generic]], size: tuple[int, int]) -> Cells:
    """Return the cells of a representation that is read strip by strip.

    Parameters
    ----------
    read : callable
        Returns the ``(1, Y, X)`` representation of a region.
    size : (int, int)
        ``(width, height)`` in pixels.
    """
    width, height = size
    strips = []
    for top in range(0, height, _ROWS):
        region = Region(0, top, width, min(top + _ROWS, height))
        pixels = read(region)[0].astype(np.float32)
        strips.append(Cells.of(pixels, represented_mask(pixels)))
    values, weight = (np.concatenate([getattr(strip, name) for strip in strips]) for name in ("values", "weight"))
    return Cells(values, weight)


def _means(plane: Plane, factor: int) -> Plane:
    """Average squares; what lies beyond the border counts as zero."""
    rows, columns = (-(-size // factor) for size in plane.shape)
    padded = np.zeros((rows * factor, columns * factor), np.float32)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    means = padded.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float32)
    return np.asarray(means, dtype=np.float32)
