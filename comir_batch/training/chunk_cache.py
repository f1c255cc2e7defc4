"""Decoded chunks of Zarr arrays, kept while there is room: crops overlap, and decoding is what reading costs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.io.zarr_array import METADATA

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from comir_batch.io.zarr_array import ZarrArray

_LIMIT_BYTES = 256_000_000


Key = tuple[str, int, int]
"""Stands for an array: its path, and which metadata file and when it was written."""


class ChunkCache:
    """The chunks that were read last, of any number of arrays; threads may share it.

    An array that is made anew in the same place is another one.

    Parameters
    ----------
    limit_bytes : int
        How much to keep.
    """

    def __init__(self, limit_bytes: int = _LIMIT_BYTES) -> None:
        self._limit, self._held, self._lock = limit_bytes, 0, Lock()
        self._chunks: OrderedDict[tuple[Key, int, int], NDArray[Any]] = OrderedDict()

    def opened(self, array: ZarrArray) -> CachedArray:
        """Return an array that is read through the cache."""
        written = (array.path / METADATA).stat()
        return CachedArray(self, array, (str(array.path), written.st_ino, written.st_mtime_ns))

    def read(self, stored: CachedArray, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region that lies inside the array."""
        array, side = stored.array, stored.array.chunk
        pixels: NDArray[Any] = np.empty((array.shape[0], *region.shape), array.dtype)
        rows = range(region.y0 // side, -(-region.y1 // side))
        columns = range(region.x0 // side, -(-region.x1 // side))
        for row, column in product(rows, columns):
            chunk = self._chunk(stored, row, column)
            corner = Region(
                column * side, row * side, column * side + chunk.shape[2], row * side + chunk.shape[1], region.level
            )
            shared = region.intersection(corner)
            assert shared is not None  # noqa: S101  the chunk was chosen so
            there, here = shared.shifted(-corner.x0, -corner.y0), shared.shifted(-region.x0, -region.y0)
            pixels[:, *here.slices] = chunk[:, *there.slices]
        return pixels

    def _chunk(self, stored: CachedArray, row: int, column: int) -> NDArray[Any]:
        array, key = stored.array, (stored.key, row, column)
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


@dataclass(frozen=True, slots=True, eq=False)
class CachedArray:
    """An array, and the cache through which it is read."""

    cache: ChunkCache
    array: ZarrArray
    key: Key

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region that lies inside the array."""
        return self.cache.read(self, region)
