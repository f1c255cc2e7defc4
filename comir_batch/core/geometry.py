"""Pixel grids in micrometres, and half-open boxes of pixels on them.

Points are ``(N, 2)`` float64 in ``(x, y)`` order and micrometres; only array indices are y-first. The *centre* of pixel
``(x, y)`` of a slide's level 0 lies at ``(x * mpp_x, y * mpp_y)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Region:
    """A half-open box of pixels ``[x0, x1) x [y0, y1)`` on one pyramid level.

    Raises
    ------
    ValueError
        If the box is empty or the level is negative.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    level: int = 0

    def __post_init__(self) -> None:
        if self.x1 <= self.x0 or self.y1 <= self.y0:
            raise ValueError(f"empty region: x {self.x0}..{self.x1}, y {self.y0}..{self.y1}")
        if self.level < 0:
            raise ValueError(f"negative level: {self.level}")

    @property
    def width(self) -> int:
        """Pixels along x."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Pixels along y."""
        return self.y1 - self.y0

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``, the shape of the array that it covers."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """``(y, x)`` slices into the level's array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def grown(self, margin: int) -> Region:
        """Return the box with ``margin`` more pixels on each side (it may leave the image)."""
        return Region(self.x0 - margin, self.y0 - margin, self.x1 + margin, self.y1 + margin, self.level)

    def shifted(self, dx: int, dy: int) -> Region:
        """Return the box moved by ``(dx, dy)`` pixels."""
        return Region(self.x0 + dx, self.y0 + dy, self.x1 + dx, self.y1 + dy, self.level)

    def intersection(self, other: Region) -> Region | None:
        """Return what both boxes cover, or None; both must lie on one level."""
        if self.level != other.level:
            raise ValueError(f"regions on levels {self.level} and {other.level} have no common pixels")
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return Region(x0, y0, x1, y1, self.level) if x0 < x1 and y0 < y1 else None

    def within(self, width: int, height: int) -> Region | None:
        """Return the part inside an image of ``width`` by ``height`` pixels, or None."""
        return self.intersection(Region(0, 0, width, height, self.level))


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle of pixels with its place in micrometres.

    The centre of pixel ``(x, y)`` lies at ``(origin_x + x * mpp_x, origin_y + y * mpp_y)`` µm.

    Raises
    ------
    ValueError
        If a size or a pixel size is not positive and finite.
    """

    width: int
    height: int
    mpp_x: float
    mpp_y: float
    origin_x: float = 0.0
    origin_y: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a grid needs pixels, not {self.width} x {self.height}")
        if not (0 < self.mpp_x < np.inf and 0 < self.mpp_y < np.inf):
            raise ValueError(f"pixel sizes must be positive and finite: {self.mpp_x}, {self.mpp_y} µm")

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``."""
        return self.height, self.width

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in µm, outer pixel borders included."""
        return self.width * self.mpp_x, self.height * self.mpp_y

    def to_um(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` pixel coordinates ``(x, y)`` to µm."""
        scale, origin = np.array([self.mpp_x, self.mpp_y]), np.array([self.origin_x, self.origin_y])
        return np.asarray(np.asarray(pixels, dtype=np.float64) * scale + origin)

    def to_pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points ``(x, y)`` in µm to pixel coordinates (pixel centres are whole numbers)."""
        scale, origin = np.array([self.mpp_x, self.mpp_y]), np.array([self.origin_x, self.origin_y])
        return np.asarray((np.asarray(points, dtype=np.float64) - origin) / scale)

    def coarser(self, factor_x: float, factor_y: float, width: int, height: int) -> Grid:
        """Return the grid whose pixels average ``factor_x`` by ``factor_y`` of these, ``width`` by ``height`` of them.

        Its first pixel's centre lies ``(factor - 1) / 2`` of these pixels from the first centre here.
        """
        return Grid(
            width,
            height,
            self.mpp_x * factor_x,
            self.mpp_y * factor_y,
            self.origin_x + (factor_x - 1) / 2 * self.mpp_x,
            self.origin_y + (factor_y - 1) / 2 * self.mpp_y,
        )

    def reduced(self, factor: int) -> Grid:
        """Return the grid of ``factor``-fold area averages; a last incomplete row or column is kept."""
        return self.coarser(factor, factor, -(-self.width // factor), -(-self.height // factor))

    def corners_um(self) -> NDArray[np.float64]:
        """Return the centres of the corner pixels in µm, ``(4, 2)``: top left, top right, bottom left, bottom right."""
        right, bottom = self.width - 1, self.height - 1
        return self.to_um([[0, 0], [right, 0], [0, bottom], [right, bottom]])
