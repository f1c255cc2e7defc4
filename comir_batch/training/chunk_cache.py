"""Decoded chunks of Zarr arrays, kept while there is room: crops overlap, and decoding is what reading costs."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.geometry import Region

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from comir_batch.io.zarr_array import ZarrArray

_LIMIT_BYTES = 256_000_000


class ChunkCache:
    """The chunks that were read last, of any number of arrays; threads may share it.

    Parameters
    ----------
    limit_bytes : int
        How much to keep.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit, self._held, self._lock = limit_bytes, 0, Lock()
        self._chunks: OrderedDict[tuple[str, int, int], NDArray[Any]] = OrderedDict()

    def read(self, array: ZarrArray, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region that lies inside the array."""
        side = array.chunk
        pixels: NDArray[Any] = np.empty((array.shape[0], *region.shape), array.dtype)
        rows = range(region.y0 // side, -(-region.y1 // side))
        columns = range(region.x0 // side, -(-region.x1 // side))
        for row, column in product(rows, columns):
            chunk = self._chunk(array, row, column)
            corner = Region(
                column * side, row * side, column * side + chunk.shape[2], row * side + chunk.shape[1], region.level
            )
            shared = region.intersection(corner)
            assert shared is not None  # noqa: S101  the chunk was chosen so
            there, here = shared.shifted(-corner.x0, -corner.y0), shared.shifted(-region.x0, -region.y0)
            pixels[:, *here.slices] = chunk[:, *there.slices]
        return pixels

    def _chunk(self, array: ZarrArray, row: int, column: int) -> NDArray[Any]:
        key = str(array.path), row, column
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        _, height, width = array.shape
        side = array.chunk
        whole = Region(column * side, row * side, (column + 1) * side, (row + 1) * side).within(width, height)
        assert whole is not None  # noqa: S101  the region lies inside the array
        chunk = array.read(whole)
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self._held += chunk.nbytes
            while self._held > self._limit:
                self._held -= self._chunks.popitem(last=False)[1].nbytes
        return chunk
