"""Where in a part of a pair crops may lie: on tissue of both slides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from comir_batch.core.errors import SlideError
from comir_batch.pipeline.overview import sample_nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid, Region
    from comir_batch.pipeline.chunked import ChunkedSlide
    from comir_batch.training.split import Box, Part

_MOST_CELLS = 256  # along an axis
_SAMPLES = 8  # along an axis of a square, to tell its share of tissue
_LEAST_KEPT = 0.75  # of a crop, by the masks that were given
SMALLEST = 32
"""Side in pixels of the smallest crops that a model is measured on."""


def part_region(slide: ChunkedSlide, grid: Grid, box: Box) -> Region:
    """Return the pixels of one of a slide's grids that a part may use.

    Raises
    ------
    SlideError
        If there are none.
    """
    info = slide.working.info
    region = box.pixels(grid, (info.mpp_x, info.mpp_y))
    if region is None:
        size = " x ".join(f"{length:.0f}" for length in info.grid().size_um)
        raise SlideError(f"{slide.spec.path}: {box} has no pixels of a slide of {size} µm; choose a larger one")
    return region


def part_grid(grid: Grid, region: Region) -> Grid:
    """Return the grid of a region of another grid, in the same µm."""
    x, y = grid.to_um([[region.x0, region.y0]])[0].tolist()
    return replace(grid, width=region.width, height=region.height, origin_x=x, origin_y=y)


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Where something holds, ``(Y, X)`` bool, and the grid of it in µm."""

    pixels: NDArray[np.bool_]
    grid: Grid

    def at(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return the value of the nearest pixel to each of ``(N, 2)`` points in µm; outside, of the border."""
        x, y = np.rint(self.grid.to_pixels(points)).astype(np.int64).T
        return np.asarray(self.pixels[y.clip(0, self.grid.height - 1), x.clip(0, self.grid.width - 1)])


class Places:
    """Tells where crops of one pixel size may lie in a part.

    Parameters
    ----------
    part : Part
        Of a pair.
    mpp : float
        Pixel size of the crops in µm.

    Raises
    ------
    SlideError
        If the part has no pixels.
    """

    def __init__(self, part: Part, mpp: float) -> None:
        slides = part.pair.fixed, part.pair.moving
        ends = [_ends(slide, part.box) for slide in slides]
        self._low, self._high = np.max([low for low, _ in ends], axis=0), np.min([high for _, high in ends], axis=0)
        self._masks = [_tissue(slide, part.box) for slide in slides]
        self._given = [mask for mask, slide in zip(self._masks, slides, strict=True) if slide.masked]
        self._name, self._mpp = part.pair.name, mpp
        self._cells: dict[int, _Cells] = {}

    def usable(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which of ``(N, 2)`` points in µm lie on tissue of both slides."""
        return np.asarray(np.logical_and.reduce([mask.at(points) for mask in self._masks]))

    def refusal(self, side: int) -> str:
        """Return why the part has no place for a crop; empty if it has one."""
        return "" if len(self._cells_for(side).corners) else self._no_place(side)

    def keep_to_masks(self, side: int) -> bool:
        """Tell whether the crops are at least three quarters inside the masks that were given, if any were."""
        return self._cells_for(side).kept

    def draw(self, rng: np.random.Generator, side: int) -> NDArray[np.float64]:
        """Draw the centre ``(x, y)`` of a crop that is on tissue and inside the part at every angle.

        Where masks were given, three quarters of the crop lie inside them, if there is such a place.

        Raises
        ------
        SlideError
            If there is none.
        """
        cells = self._cells_for(side)
        if not len(cells.corners):
            raise SlideError(self._no_place(side))
        corner = cells.corners[int(rng.integers(len(cells.corners)))]
        point = corner + rng.random(2) * cells.size
        return np.asarray(point if self.usable(point[None])[0] else corner + cells.size / 2)

    def count(self, side: int) -> int:
        """Return how many crops, side by side, are tissue in at least half their area; 0 if none could be turned."""
        um = side * self._mpp
        columns, rows = np.floor((self._high - self._low) / um).astype(int)
        if (self._high - self._low < 2 * self._margin(side)).any():
            return 0
        offsets = (np.arange(_SAMPLES) + 0.5) / _SAMPLES * um
        x = self._low[0] + (np.arange(columns)[:, None] * um + offsets).ravel()
        found = 0
        for row in range(rows):
            y = self._low[1] + row * um + offsets
            points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
            shares = self.usable(points).reshape(_SAMPLES, columns, _SAMPLES).mean(axis=(0, 2))
            found += int((shares >= 0.5).sum())
        return found

    def _cells_for(self, side: int) -> _Cells:
        if side not in self._cells:
            self._cells[side] = self._cut(side)
        return self._cells[side]

    def _cut(self, side: int) -> _Cells:
        """Cut the inner rectangle into cells about as large as the masks' pixels; keep those with a usable centre."""
        low, high = self._low + self._margin(side), self._high - self._margin(side)
        if (low > high).any():
            return _Cells(np.zeros((0, 2)), np.zeros(2), kept=True)
        finest = min(min(mask.grid.mpp_x, mask.grid.mpp_y) for mask in self._masks)
        count = np.clip(np.ceil((high - low) / finest), 1, _MOST_CELLS).astype(int)
        size = (high - low) / count
        x, y = (low[k] + size[k] * np.arange(count[k]) for k in (0, 1))
        corners = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        usable = self.usable(corners + size / 2)
        kept = usable & self._kept(corners + size / 2, side)
        return _Cells(corners[kept if kept.any() else usable], size, kept=bool(kept.any() or not usable.any()))

    def _kept(self, points: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
        """Tell around which points a crop, seen as upright, lies well inside the masks that were given."""
        if not self._given:
            return np.ones(len(points), dtype=bool)
        grid = self._given[0].grid
        inside = np.logical_and.reduce([sample_nearest(mask.pixels, mask.grid, grid) for mask in self._given])
        size = [max(round(side * self._mpp / mpp), 1) for mpp in (grid.mpp_y, grid.mpp_x)]
        shares = ndimage.uniform_filter(inside.astype(np.float32), size, mode="nearest")
        return Mask(shares >= _LEAST_KEPT, grid).at(points)

    def _margin(self, side: int) -> float:
        return side * self._mpp * float(np.sqrt(0.5))

    def _no_place(self, side: int) -> str:
        need, size = 2 * self._margin(side), self._high - self._low
        smaller = "smaller crops, " if side > SMALLEST else ""  # than which nothing sets them
        remedy = f"Use {smaller}a smaller pixel size, or larger images"
        if (size < need).any():
            have = " x ".join(f"{length:.0f}" for length in size)
            return f"pair {self._name}: crops of {side} pixels need {need:.0f} µm, the part has {have} µm. {remedy}"
        reason = f"no crop of {side} pixels has its centre on tissue of both slides"
        return f"pair {self._name}: {reason}. {remedy}, or give masks"


@dataclass(frozen=True, eq=False)
class _Cells:
    corners: NDArray[np.float64]
    size: NDArray[np.float64]
    kept: bool


def has_tissue(part: Part) -> bool:
    """Tell whether there is tissue of each slide in a part."""
    try:
        return all(_tissue(slide, part.box).pixels.any() for slide in (part.pair.fixed, part.pair.moving))
    except SlideError:  # no pixels at all
        return False


def require_places(parts: Sequence[Part], side: int, mpp: float, least: int) -> int:
    """Return how many crops, side by side, are tissue of both slides in at least half their area, over all parts.

    Raises
    ------
    SlideError
        If there are fewer than `least`.
    """
    found = sum(Places(part, mpp).count(side) for part in parts)
    if found < least:
        pairs = f"{len(parts)} pair" + "s" * (len(parts) != 1)
        raise SlideError(
            f"{pairs} have room for {found} crops of {side} pixels of {mpp:g} µm with tissue, training needs {least}. "
            "Give more or larger pairs, smaller crops, a smaller pixel size (mpp), or masks of the tissue"
        )
    return found


def _ends(slide: ChunkedSlide, box: Box) -> NDArray[np.float64]:
    """Return the outer borders ``((left, top), (right, bottom))`` of a part's pixels in µm."""
    region = part_region(slide, slide.grid, box)
    return slide.grid.to_um([[region.x0 - 0.5, region.y0 - 0.5], [region.x1 - 0.5, region.y1 - 0.5]])


def _tissue(slide: ChunkedSlide, box: Box) -> Mask:
    overview = slide.overview()
    area = part_region(slide, overview.grid, box)
    return Mask(overview.tissue[area.slices], part_grid(overview.grid, area))
