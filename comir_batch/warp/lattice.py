"""Where the pixels of a region lie in the moving image, from a coarse lattice of exactly mapped points.

Mapping every pixel costs fifty times more than resampling it. A deformation is smooth between its control points, so
it is mapped on a lattice, a cubic B-spline through the nodes gives the pixels, and a sample of them is held against
the exact map: where they differ too much the lattice is made finer, and in the end every pixel is mapped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

from comir_batch.core.geometry import Region
from comir_batch.core.transform import BSpline

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite

MARGIN = 2  # pixels that cubic interpolation reads beyond a coordinate
_NODES_PER_CONTROL_SPACING = 8
_COARSEST, _FINEST = 128, 4  # lattice steps in pixels; below the finest, mapping every pixel is as quick
_PADDING = 12  # nodes; the spline filter forgets its border by a factor of 0.27 a node
_STRATA = 24  # sampled pixels along each axis
_EXACT_ROWS = 128  # mapped at once where every pixel is


@dataclass(frozen=True, slots=True, eq=False)
class CoordinateMap:
    """Moving pixel coordinates of each pixel of a region, less a whole-numbered origin below all of them.

    Attributes
    ----------
    origin : (2,) int64
        ``(x, y)`` in moving pixels; float32 offsets from it stay exact to 0.001 px however large the slide.
    x, y : (h, w) float32
        Coordinates less the origin; pixel centres are whole numbers.
    step : int
        Lattice step in fixed pixels; 1 if every pixel was mapped, 0 if the map is affine.
    """

    origin: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    step: int

    def bounds(self, piece: Region) -> Region:
        """Return the moving pixels that interpolation at a piece's coordinates may touch, inside the image or not."""
        x, y = self.x[piece.slices], self.y[piece.slices]
        ox, oy = (int(value) for value in self.origin)
        x0, y0 = ox + int(np.floor(x.min())) - MARGIN, oy + int(np.floor(y.min())) - MARGIN
        x1, y1 = ox + int(np.ceil(x.max())) + MARGIN + 1, oy + int(np.ceil(y.max())) + MARGIN + 1
        return Region(x0, y0, x1, y1)

    def outside(self, piece: Region, image: Grid) -> NDArray[np.bool_]:
        """Tell which of a piece's coordinates lie beyond the outer borders of the moving image's pixels."""
        x, y = self.x[piece.slices], self.y[piece.slices]
        left, top = (-0.5 - float(first) for first in self.origin)
        right, bottom = left + image.width, top + image.height
        return np.asarray((x < left) | (x > right) | (y < top) | (y > bottom))

    def _coordinates(self, piece: Region, footprint: Region) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``(h, w)`` x and y of a piece's pixels, counted from a footprint's first pixel."""
        x = self.x[piece.slices] - np.float32(footprint.x0 - self.origin[0])
        y = self.y[piece.slices] - np.float32(footprint.y0 - self.origin[1])
        return x, y

    def sampler(self, piece: Region, footprint: Region, method: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return what interpolates the ``(Y, X)`` pixels of a footprint at a piece's coordinates."""
        x, y = self._coordinates(piece, footprint)
        if method == cv2.INTER_NEAREST:  # OpenCV rounds halves to even, which depends on the footprint's origin
            x, y = np.floor(x + np.float32(0.5)), np.floor(y + np.float32(0.5))
        return lambda pixels: cv2.remap(pixels, x, y, method, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True, slots=True)
class RegionMap:
    """Fixed pixels of a region to moving pixels: a linear trend, exact at three corners, and what is left of it."""

    transform: Composite
    fixed: Grid
    moving: Grid
    region: Region

    def exact(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where ``(N, 2)`` fixed pixels ``(x, y)`` lie, in moving pixels."""
        return self.moving.to_pixels(self.transform.map(self.fixed.to_um(pixels)))

    def trend(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the moving pixel of the region's first pixel, and the change along its width and its height."""
        area = self.region
        corners = np.array([[area.x0, area.y0], [area.x1, area.y0], [area.x0, area.y1]], dtype=np.float64)
        first, right, below = self.exact(corners)
        return first, right - first, below - first

    def residual(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (2, rows, columns): exact less trend at pixels counted from the region's first."""
        first, right, below = self.trend()
        x, y = np.meshgrid(columns, rows)
        pixels = np.stack([x.ravel() + self.region.x0, y.ravel() + self.region.y0], axis=1)
        linear = first + x.reshape(-1, 1) / self.region.width * right + y.reshape(-1, 1) / self.region.height * below
        return np.asarray((self.exact(pixels) - linear).T.reshape(2, rows.size, columns.size))


def coordinate_map(
    transform: Composite, fixed_grid: Grid, region: Region, moving_grid: Grid, max_error_px: float
) -> CoordinateMap:
    """Return where the pixels of a region lie in the moving image.

    Parameters
    ----------
    transform : Composite
        Fixed to moving, in µm.
    fixed_grid, moving_grid : Grid
        Places of both images' pixels in µm.
    region : Region
        Pixels of ``fixed_grid``.
    max_error_px : float
        Largest distance in moving pixels between the lattice's answer and the exact one, over a seeded random sample
        of the region that includes its corners.
    """
    exact = RegionMap(transform, fixed_grid, moving_grid, region)
    if transform.is_affine:
        return _assembled(exact, np.zeros((2, *region.shape), dtype=np.float32), step=0)
    sample = _sampled_pixels(region.width, region.height)
    truth = exact.exact(np.asarray(sample, dtype=np.float64) + np.array([region.x0, region.y0]))
    step = _first_step(transform, fixed_grid)
    while step >= _FINEST:
        candidate = _assembled(exact, _upsampled(exact, step), step)
        if _largest_error(candidate, sample, truth) <= max_error_px:
            return candidate
        step //= 2
    return _assembled(exact, _every_pixel(exact), step=1)


def _first_step(transform: Composite, grid: Grid) -> int:
    """Return the largest power of two that gives each control spacing its nodes, or less than the finest step."""
    spacings = [float(part.spacing.min()) for part in transform.parts if isinstance(part, BSpline)]
    wanted = min(spacings) / _NODES_PER_CONTROL_SPACING / max(grid.mpp_x, grid.mpp_y)
    return int(min(2 ** int(np.log2(max(wanted, 1))), _COARSEST))


def _sampled_pixels(width: int, height: int) -> NDArray[np.int64]:
    """Return (N, 2) whole pixels ``(x, y)``: the corners, and one at random in each cell of a regular division."""
    random = np.random.default_rng(0)
    jitter = np.arange(_STRATA)[:, None, None] + random.random((_STRATA, _STRATA, 2))
    across = jitter[..., 0] / _STRATA * width
    down = np.swapaxes(jitter[..., 1], 0, 1) / _STRATA * height
    corners = [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]
    inside = np.stack([across.ravel(), down.ravel()], axis=1).astype(np.int64)
    return np.concatenate([np.array(corners, dtype=np.int64), inside])


def _largest_error(candidate: CoordinateMap, sample: NDArray[np.int64], truth: NDArray[np.float64]) -> float:
    columns, rows = sample.T
    found = np.stack([candidate.x[rows, columns], candidate.y[rows, columns]], axis=1) + candidate.origin
    return float(np.hypot(*(found - truth).T).max())


def _upsampled(exact: RegionMap, step: int) -> NDArray[np.float32]:
    height, width = exact.region.shape
    nodes = exact.residual(_nodes(width, step), _nodes(height, step))
    for axis in (1, 2):
        nodes = ndimage.spline_filter1d(nodes, order=3, axis=axis, mode="mirror")
    coefficients = nodes.astype(np.float32)
    return np.asarray(_weights(height, step) @ coefficients @ _weights(width, step).T)


def _nodes(size: int, step: int) -> NDArray[np.float64]:
    return (np.arange((size - 1) // step + 2 + 2 * _PADDING, dtype=np.float64) - _PADDING) * step


@lru_cache(maxsize=16)
def _weights(size: int, step: int) -> NDArray[np.float32]:
    """Return (size, nodes): the cubic B-spline's weights of the nodes at each pixel."""
    pixels = np.arange(size, dtype=np.float64)[:, None]
    distance = np.abs(pixels - _nodes(size, step)[None]) / step
    near = 2 / 3 - distance**2 * (1 - distance / 2)
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _every_pixel(exact: RegionMap) -> NDArray[np.float32]:
    height, width = exact.region.shape
    residual = np.empty((2, height, width), dtype=np.float32)
    columns = np.arange(width, dtype=np.float64)
    for row in range(0, height, _EXACT_ROWS):
        rows = np.arange(row, min(row + _EXACT_ROWS, height), dtype=np.float64)
        residual[:, row : row + rows.size] = exact.residual(columns, rows)
    return residual


def _assembled(exact: RegionMap, residual: NDArray[np.float32], step: int) -> CoordinateMap:
    """Add the trend to the residual, in place; large numbers meet in float64, before the origin is taken off."""
    first, right, below = exact.trend()
    height, width = exact.region.shape
    lowest = first + np.minimum(right, 0) + np.minimum(below, 0) + residual.min(axis=(1, 2))
    origin = np.floor(lowest).astype(np.int64) - MARGIN
    across, down = np.arange(width) / width, np.arange(height) / height
    for axis in (0, 1):
        residual[axis] += (across * right[axis]).astype(np.float32)
        residual[axis] += (down * below[axis] + (first[axis] - origin[axis])).astype(np.float32)[:, None]
    return CoordinateMap(origin, residual[0], residual[1], step)
