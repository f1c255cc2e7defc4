"""Where the pixels of a region lie in the moving image under an affine transform, which OpenCV maps by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.warp.lattice import MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from comir_batch.warp.lattice import RegionMap

_TILE = 256  # pixels, interpolated at once and whole, so that no rounding depends on the piece that was asked for


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """Moving pixel coordinates of the pixels of a region, as a matrix.

    Not for nearest neighbours: OpenCV rounds halves to even, which depends on where its pixels begin.

    Attributes
    ----------
    first, right, below : (2,) float64
        ``(x, y)`` in moving pixels of the region's first pixel, and the change from one pixel to the next along its
        rows and columns.
    region : Region
        Its pieces are counted from its first pixel.
    """

    first: NDArray[np.float64]
    right: NDArray[np.float64]
    below: NDArray[np.float64]
    region: Region

    @classmethod
    def of(cls, exact: RegionMap) -> AffineMap:
        """Take the trend of a map, which is all of it if its transform is affine."""
        first, across, down = exact.trend()
        return cls(first, across / exact.region.width, down / exact.region.height, exact.region)

    def bounds(self, piece: Region) -> Region:
        """Return the moving pixels that interpolation of a piece's tiles may touch, inside the image or not."""
        x0, y0 = (side // _TILE * _TILE for side in (piece.x0, piece.y0))
        x1 = min(-(-piece.x1 // _TILE) * _TILE, self.region.width)
        y1 = min(-(-piece.y1 // _TILE) * _TILE, self.region.height)
        return self._box(Region(x0, y0, x1, y1))

    def coordinates(self, piece: Region, footprint: Region) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``(h, w)`` x and y of a piece's pixels, counted from a footprint's first pixel."""
        columns, rows = np.arange(piece.width), np.arange(piece.height)[:, None]
        x, y = ((a * columns + b * rows + c).astype(np.float32) for a, b, c in self._matrix(piece, footprint))
        return x, y

    def sampler(self, piece: Region, footprint: Region, method: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return what interpolates the ``(Y, X)`` pixels of a footprint at a piece's coordinates, tile by tile."""

        def sampled(pixels: NDArray[Any]) -> NDArray[Any]:
            out = np.zeros(piece.shape, pixels.dtype)
            for tile in self._tiles(piece):
                seen, wanted = self._box(tile).intersection(footprint), tile.intersection(piece)
                if seen is None or wanted is None:
                    continue
                warped = cv2.warpAffine(
                    pixels[seen.shifted(-footprint.x0, -footprint.y0).slices],
                    self._matrix(tile, seen),
                    (tile.width, tile.height),
                    flags=method | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                here = warped[wanted.shifted(-tile.x0, -tile.y0).slices]
                out[wanted.shifted(-piece.x0, -piece.y0).slices] = here
            return out

        return sampled

    def _tiles(self, piece: Region) -> Iterator[Region]:
        """Yield the region's tiles that a piece touches, whole, clipped to the region only."""
        for y in range(piece.y0 // _TILE * _TILE, piece.y1, _TILE):
            for x in range(piece.x0 // _TILE * _TILE, piece.x1, _TILE):
                yield Region(x, y, min(x + _TILE, self.region.width), min(y + _TILE, self.region.height))

    def _box(self, piece: Region) -> Region:
        corners = np.array([self._at(x, y) for x in (piece.x0, piece.x1 - 1) for y in (piece.y0, piece.y1 - 1)])
        (x0, y0), (x1, y1) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
        return Region(int(x0) - MARGIN, int(y0) - MARGIN, int(x1) + MARGIN + 1, int(y1) + MARGIN + 1)

    def _at(self, x: float, y: float) -> NDArray[np.float64]:
        return self.first + x * self.right + y * self.below

    def _matrix(self, piece: Region, footprint: Region) -> NDArray[np.float64]:
        """Return (2, 3): a piece's pixels to a footprint's."""
        origin = self._at(piece.x0, piece.y0) - (footprint.x0, footprint.y0)
        return np.column_stack([self.right, self.below, origin])
