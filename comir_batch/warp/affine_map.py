"""Where the pixels of a region lie in the moving image under an affine transform, which OpenCV maps by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.warp.lattice import MARGIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.warp.lattice import RegionMap

_TILE = 256  # pixels, interpolated at once and whole, so that no rounding depends on the piece that was asked for


class _Axis(NamedTuple):
    """Moving pixels along an axis: of a region's first pixel, and from one to the next along its rows and columns."""

    first: float
    right: float
    below: float

    def at(self, x: Any, y: Any) -> Any:
        """Return where a pixel lies that is counted from the region's first."""
        return self.first + x * self.right + y * self.below

    def span(self, piece: Region) -> tuple[int, int]:
        """Return the half-open range of moving pixels that interpolation of a piece may touch."""
        across, down = (piece.width - 1) * self.right, (piece.height - 1) * self.below
        corner = self.at(piece.x0, piece.y0)
        low, high = corner + min(across, 0) + min(down, 0), corner + max(across, 0) + max(down, 0)
        return math.floor(low) - MARGIN, math.ceil(high) + MARGIN + 1


@dataclass(frozen=True, slots=True)
class AffineMap:
    """Moving pixel coordinates of the pixels of a region, as a matrix.

    Not for nearest neighbours: OpenCV rounds halves to even, which depends on where its pixels begin.

    Attributes
    ----------
    x, y : _Axis
        Moving pixels along each axis.
    region : Region
        Its pieces are counted from its first pixel.
    """

    x: _Axis
    y: _Axis
    region: Region

    @classmethod
    def of(cls, exact: RegionMap) -> AffineMap:
        """Take the trend of a map, which is all of it if its transform is affine."""
        first, across, down = exact.trend()
        rows = zip(first, across / exact.region.width, down / exact.region.height, strict=True)
        x, y = (_Axis(*map(float, row)) for row in rows)
        return cls(x, y, exact.region)

    def bounds(self, piece: Region) -> Region:
        """Return the moving pixels that interpolation of a piece's tiles may touch, inside the image or not."""
        x0, y0 = (side // _TILE * _TILE for side in (piece.x0, piece.y0))
        x1 = min(-(-piece.x1 // _TILE) * _TILE, self.region.width)
        y1 = min(-(-piece.y1 // _TILE) * _TILE, self.region.height)
        return self._box(Region(x0, y0, x1, y1))

    def outside(self, piece: Region, image: Grid) -> NDArray[np.bool_]:
        """Tell which of a piece's coordinates lie beyond the outer borders of the moving image's pixels."""
        out = np.zeros(piece.shape, dtype=bool)
        for tile in self._tiles(piece):
            box, wanted = self._box(tile), tile.intersection(piece)
            if wanted is not None and box.within(image.width, image.height) != box:
                out[wanted.shifted(-piece.x0, -piece.y0).slices] = self._leaves(wanted, image)
        return out

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

    def _leaves(self, piece: Region, image: Grid) -> NDArray[np.bool_]:
        columns, rows = np.arange(piece.x0, piece.x1), np.arange(piece.y0, piece.y1)[:, None]
        x, y = self.x.at(columns, rows), self.y.at(columns, rows)
        return np.asarray((x < -0.5) | (x > image.width - 0.5) | (y < -0.5) | (y > image.height - 0.5))

    def _tiles(self, piece: Region) -> Iterator[Region]:
        """Yield the region's tiles that a piece touches, whole, clipped to the region only."""
        for y in range(piece.y0 // _TILE * _TILE, piece.y1, _TILE):
            for x in range(piece.x0 // _TILE * _TILE, piece.x1, _TILE):
                yield Region(x, y, min(x + _TILE, self.region.width), min(y + _TILE, self.region.height))

    def _box(self, piece: Region) -> Region:
        (x0, x1), (y0, y1) = self.x.span(piece), self.y.span(piece)
        return Region(x0, y0, x1, y1)

    def _matrix(self, piece: Region, footprint: Region) -> NDArray[np.float64]:
        """Return (2, 3): a piece's pixels to a footprint's."""
        axes = ((self.x, footprint.x0), (self.y, footprint.y0))
        return np.array([(axis.right, axis.below, axis.at(piece.x0, piece.y0) - start) for axis, start in axes])
