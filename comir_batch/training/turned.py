"""Whether one image of a pair is turned or mirrored against the other, or lies far off, told from their overviews."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from comir_batch.core.geometry import Grid
from comir_batch.training.places import part_grid, part_region
from comir_batch.training.shift_surface import (
    REACH,
    SIDE,
    Peak,
    find_far_peak,
    find_peak,
    fixed_spectra,
    moving_spectra,
)
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.pipeline.chunked import ChunkedSlide
    from comir_batch.training.pairs import TrainingPair
    from comir_batch.training.shift_surface import Spectra
    from comir_batch.training.split import Box

WIDEST_DEG = 9.0
"""Largest small turn that is believed; one step more is tried, to see that it is no better."""
_STEP_DEG = 1.5
_LONGEST = 512  # side of the images, in pixels: a step turns their borders by no more than a tile can bear
_LEAST_TISSUE = 0.3  # of a tile of either slide
_FEWEST_TILES = 4
_CLEAR, _CLEAR_TURNED = 12.0, 15.0  # the best of so many wrong turns stays below
_PERCENTILES = (1.0, 99.5)
_FAR_LONGEST = 256  # side of the images that are compared at shifts by up to half of them, in pixels
_FAR_LEAST_TISSUE = 0.05  # of either whole image
_FAR_CLEAR = 30.0  # unrelated images, mirrored and turned ones stay below half of it


@dataclass(frozen=True, slots=True)
class Turn:
    """How the moving image lies best on the fixed one.

    Attributes
    ----------
    orientation : str
        ``turned by 180 degrees`` and the like; empty where a small turn is best.
    angle_deg : float
        The small turn, clockwise as seen; 0 for other orientations.
    peak : Peak
        Of the shift, in pixels of `mpp`.
    mpp : float
        Pixel size of the images compared, in µm.
    """

    orientation: str
    angle_deg: float
    peak: Peak
    mpp: float

    @property
    def clear(self) -> bool:
        """Whether the peak is too high for chance, and not at the end of what was tried."""
        inside = self.peak.inside and abs(self.angle_deg) <= WIDEST_DEG
        return inside and self.peak.z >= (_CLEAR_TURNED if self.orientation else _CLEAR)


def best_turn(pair: TrainingPair, box: Box) -> Turn:
    """Try small turns, quarter turns and mirroring of the moving image; return what shows most common structure."""
    fixed, moving, grid = _on_one_grid(pair, box, _LONGEST)
    still, mpp = _Still(_laid(fixed, grid, np.eye(2))), grid.mpp_x
    turns = [Turn(name, angle, still.compare(_laid(moving, grid, linear)), mpp) for name, angle, linear in _linears()]
    return max(turns, key=lambda turn: (turn.clear, turn.peak.z))


class Far(NamedTuple):
    """How many µm ``(x, y)`` the moving image lies off, how clear that is, and the pixel size that it was told at."""

    shift_um: NDArray[np.float64]
    z: float
    mpp: float


def far_shift(pair: TrainingPair, box: Box) -> Far | None:
    """Compare whole images on tissue, coarse and upright, at shifts by up to half of them; None if nothing is clear."""
    fixed, moving, grid = _on_one_grid(pair, box, _FAR_LONGEST)
    both = [_laid(image, grid, np.eye(2)) for image in (fixed, moving)]
    counted = [_counted(image, on_tissue=True) for image in both]
    if min(mask.mean() for mask in counted) < _FAR_LEAST_TISSUE:
        return None
    peak = find_far_peak(both[0].pixels, counted[0], both[1].pixels, counted[1])
    at_the_end = abs(peak.x) > grid.width // 2 - 1 or abs(peak.y) > grid.height // 2 - 1
    if at_the_end or peak.z < _FAR_CLEAR:
        return None
    return Far(np.array([peak.x, peak.y]) * grid.mpp_x, peak.z, grid.mpp_x)


def _linears() -> Iterator[tuple[str, float, NDArray[np.float64]]]:
    """Yield names, small angles and maps of fixed to moving places, about the middle."""
    steps = round(WIDEST_DEG / _STEP_DEG) + 1
    for step in range(-steps, steps + 1):
        yield "", step * _STEP_DEG, _rotation(step * _STEP_DEG)
    for quarter in (1, 2, 3):
        yield f"turned by {90 * quarter} degrees", 0.0, _rotation(90.0 * quarter)
    mirror = np.diag([-1.0, 1.0])
    for quarter, name in enumerate(("left to right", "along a diagonal", "upside down", "along the other diagonal")):
        yield f"mirrored {name}", 0.0, _rotation(90.0 * quarter) @ mirror


def _rotation(degrees: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


_Grey = tuple["NDArray[np.float32]", "NDArray[np.bool_]", Grid]


def _on_one_grid(pair: TrainingPair, box: Box, longest: int) -> tuple[_Grey, _Grey, Grid]:
    """Return the part of both slides in grey, and a grid of at most so many pixels a side of what both show."""
    fixed, moving = (_grey(slide, box) for slide in (pair.fixed, pair.moving))
    corners = np.array([grid.corners_um()[[0, 3]] for _, _, grid in (fixed, moving)])
    low, high = corners[:, 0].max(axis=0), corners[:, 1].min(axis=0)
    own = max(fixed[2].mpp_x, fixed[2].mpp_y, moving[2].mpp_x, moving[2].mpp_y)
    mpp = max(own, float((high - low).max()) / longest)
    width, height = (int(n) for n in np.maximum((high - low) / mpp, 1))
    return fixed, moving, Grid(width, height, mpp, mpp, *low.tolist())


def _grey(slide: ChunkedSlide, box: Box) -> _Grey:
    """Return a part of a slide's overview in grey, its tissue, and its grid."""
    overview = slide.overview()
    area = part_region(slide, overview.grid, box)
    tissue = overview.tissue[area.slices]
    pixels = np.nan_to_num(overview.pixels[:, *area.slices].astype(np.float32).mean(axis=0))
    low, high = np.percentile(pixels[tissue] if tissue.any() else pixels, _PERCENTILES)
    scaled = np.clip((pixels - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
    return scaled.astype(np.float32), tissue, part_grid(overview.grid, area)


class _Image(NamedTuple):
    """Grey pixels on the common grid, where they come from the image, and where there is tissue."""

    pixels: NDArray[np.float32]
    valid: NDArray[np.bool_]
    tissue: NDArray[np.bool_]


class _Still:
    """The fixed image, cut into tiles once: those with tissue, or all where these are too few."""

    def __init__(self, image: _Image) -> None:
        step, (height, width) = SIDE - 2 * REACH, image.pixels.shape
        corners = product(range(0, height - SIDE + 1, step), range(0, width - SIDE + 1, step))
        places = [np.s_[y : y + SIDE, x : x + SIDE] for y, x in corners]
        self._on_tissue = [place for place in places if image.tissue[place].mean() >= _LEAST_TISSUE]
        self._image, self._all = image, places
        self._spectra: dict[tuple[int, int, bool], Spectra] = {}

    def compare(self, moving: _Image) -> Peak:
        """Return the peak of the shift of the moving image."""
        both = [place for place in self._on_tissue if moving.tissue[place].mean() >= _LEAST_TISSUE]
        places, on_tissue = (both, True) if len(both) >= _FEWEST_TILES else (self._all, False)
        if len(places) < _FEWEST_TILES:
            return Peak(0.0, 0.0, 0.0)
        mask = _counted(moving, on_tissue=on_tissue)
        return find_peak(
            [(self._of(p, on_tissue=on_tissue), moving_spectra(moving.pixels[p], mask[p])) for p in places]
        )

    def _of(self, place: tuple[slice, slice], *, on_tissue: bool) -> Spectra:
        key = place[0].start, place[1].start, on_tissue
        if key not in self._spectra:
            mask = _counted(self._image, on_tissue=on_tissue)
            self._spectra[key] = fixed_spectra(self._image.pixels[place], mask[place])
        return self._spectra[key]


def _counted(image: _Image, *, on_tissue: bool) -> NDArray[np.bool_]:
    return image.valid & image.tissue if on_tissue else image.valid


def _laid(image: _Grey, grid: Grid, linear: NDArray[np.float64]) -> _Image:
    """Resample an image and its tissue on a grid, turned about its middle."""
    pixels, tissue, own = image
    factor = max(1, int(grid.mpp_x / own.mpp_x + 0.01))
    planes = reduce_area(np.stack([pixels, np.ones_like(pixels), tissue.astype(np.float32)]), factor)
    own = own.reduced(factor)
    middle = grid.to_um([[(grid.width - 1) / 2, (grid.height - 1) / 2]])[0]
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    start, right, down = own.to_pixels((grid.to_um(corners) - middle) @ linear.T + middle)
    matrix = np.column_stack([right - start, down - start, start])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid, valid, inside = (cv2.warpAffine(plane, matrix, (grid.width, grid.height), flags=flags) for plane in planes)
    return _Image(np.asarray(laid), np.asarray(valid > 0.99), np.asarray(inside > 0.5))
