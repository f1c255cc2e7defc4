"""Reading a large region at a coarser size, strip by strip, so that its full size is never in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_STRIP_BYTES = 64_000_000
# Of a strip, its copy while it is reduced, and float32 or float64 in between.
_COPIES = 4


def read_reduced(
    read: Callable[[Region], NDArray[np.generic]],
    region: Region,
    factor: int,
    pixel_bytes: int,
    convert: Callable[[NDArray[np.generic]], NDArray[np.generic]] | None = None,
) -> NDArray[np.generic]:
    """Return the means of ``factor`` by ``factor`` pixels of a region.

    Parameters
    ----------
    read : callable
        Returns ``(C, Y, X)`` pixels of a region.
    region : Region
        What to read; its origin lies on a multiple of `factor`.
    factor : int
        Pixels along each axis that become one.
    pixel_bytes : int
        Of one pixel, all channels.
    convert : callable or None
        Applied to each strip before it is reduced, for example to average its channels.

    Returns
    -------
    (C, ceil(Y / factor), ceil(X / factor)) array
    """
    rows = _rows(region.width, factor, pixel_bytes)
    strips = []
    for y in range(region.y0, region.y1, rows):
        strip = read(Region(region.x0, y, region.x1, min(y + rows, region.y1), region.level))
        strips.append(reduce_area(strip if convert is None else convert(strip), factor))
    return np.concatenate(strips, axis=1)


def strip_mb(width: int, factor: int, pixel_bytes: int) -> int:
    """Return the most memory in MB that `read_reduced` takes beside its result, for a region of so many columns."""
    return int(_COPIES * _rows(width, factor, pixel_bytes) * width * pixel_bytes / 1e6) + 1


def _rows(width: int, factor: int, pixel_bytes: int) -> int:
    return max(1, _STRIP_BYTES // (width * pixel_bytes * factor)) * factor
