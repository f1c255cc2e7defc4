"""Blocks: rectangles of whole shards, fixed at planning, the unit of work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.geometry import Grid, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Cuts an image into square blocks of ``side`` pixels (a whole multiple of the shard); border blocks are smaller.

    Raises
    ------
    ValueError
        If a size is not positive.
    """

    width: int
    height: int
    side: int
    level: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.side) < 1:
            raise ValueError(f"cannot cut {self.width} x {self.height} pixels into blocks of {self.side}")

    @property
    def counts(self) -> tuple[int, int]:
        """Number of block ``(columns, rows)``."""
        return -(-self.width // self.side), -(-self.height // self.side)

    def __len__(self) -> int:
        columns, rows = self.counts
        return columns * rows

    def __iter__(self) -> Iterator[Region]:
        columns, rows = self.counts
        for row in range(rows):
            for column in range(columns):
                yield self.region(column, row)

    def region(self, column: int, row: int) -> Region:
        """Return the pixels of one block, clipped to the image."""
        x0, y0 = column * self.side, row * self.side
        return Region(x0, y0, min(x0 + self.side, self.width), min(y0 + self.side, self.height), self.level)


def touches(
    mask: NDArray[np.bool_], mask_grid: Grid, region: Region, region_grid: Grid, margin_um: float = 0.0
) -> bool:
    """Tell whether any True pixel of a coarse mask lies in or near a region of a finer grid.

    Parameters
    ----------
    mask : (Y, X) bool
        Coarse mask whose pixels lie on ``mask_grid``.
    mask_grid, region_grid : Grid
        Places of both in the same µm.
    region : Region
        Pixels of ``region_grid``.
    margin_um : float
        How near counts.
    """
    ends = region_grid.to_um([[region.x0 - 0.5, region.y0 - 0.5], [region.x1 - 0.5, region.y1 - 0.5]])
    low, high = mask_grid.to_pixels(ends + np.array([[-margin_um], [margin_um]]))
    x0, y0 = np.floor(low + 0.5).astype(int)
    x1, y1 = np.ceil(high + 0.5).astype(int)
    return bool(mask[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)].any())
