"""Aligned crops of a pair of slides, read from chunked Zarr when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import cv2
import numpy as np

from comir_batch.core.errors import SlideError, TaskError
from comir_batch.core.geometry import Region
from comir_batch.pipeline.overview import sample_nearest
from comir_batch.representation.normalise import intensity_range, to_input
from comir_batch.training.chunk_cache import ChunkCache
from comir_batch.training.places import Mask, Places, part_grid, part_region
from comir_batch.warp.resample import converted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.card import Input, ModalityCard
    from comir_batch.pipeline.chunked import ChunkedSlide
    from comir_batch.representation.normalise import Range
    from comir_batch.training.split import Box, Part

_CACHE = ChunkCache()


class Pose(NamedTuple):
    """Where a crop lies: centre in µm, turn in radians, whether it is mirrored along x first, and how much it shows.

    A crop of scale 2 shows twice as many µm along each side as its pixel size says.
    """

    x: float
    y: float
    angle: float = 0.0
    mirrored: bool = False
    scale: float = 1.0

    @property
    def linear(self) -> NDArray[np.float64]:
        """The ``(2, 2)`` map from offsets on the crop to offsets on the slide."""
        cosine, sine, mirror = np.cos(self.angle), np.sin(self.angle), -1.0 if self.mirrored else 1.0
        return self.scale * np.array([[mirror * cosine, -sine], [mirror * sine, cosine]])


class CropReader:
    """Reads normalised crops of a part of one slide, anywhere and at any angle, at one pixel size.

    Parameters
    ----------
    slide : ChunkedSlide
        The slide.
    box : Box
        The part; no pixel outside it is ever looked at.
    card : Input
        How pixels become the network's input.
    mpp : float
        Pixel size of the crops in µm.
    whole_ranges : bool
        Measure the intensity ranges on the whole slide, as a run does, not on the part alone.

    Attributes
    ----------
    grid : Grid
        The part's pixels at the working level, in the slide's µm.
    ranges : tuple of Range
        Intensities that become 0 and 1.
    mpp : float
        As given.
    is_rgb : bool
        Whether the slide is an RGB image.

    Raises
    ------
    SlideError
        If the part has no pixels, no tissue or no contrast.
    """

    def __init__(self, slide: ChunkedSlide, box: Box, card: Input, mpp: float, *, whole_ranges: bool = False) -> None:
        self._stored, self._card, self.mpp = _CACHE.opened(slide.array()), card, mpp
        self.is_rgb = slide.working.info.is_rgb
        self._masked = slide.masked
        self._region = part_region(slide, slide.grid, box)
        self.grid = part_grid(slide.grid, self._region)
        overview = slide.overview()
        area = part_region(slide, overview.grid, box)
        self._tissue = Mask(overview.tissue[area.slices], part_grid(overview.grid, area))
        seen = np.s_[:, :] if whole_ranges else area.slices
        self.ranges: Sequence[Range] = _ranges(slide, overview.pixels[:, *seen], overview.tissue[seen], card)

    def read(self, pose: Pose, side: int) -> NDArray[np.float32]:
        """Return a ``(C, side, side)`` crop, interpolated cubically; the part is continued by its mirror image.

        Pixels that are not finite become 0.

        Raises
        ------
        ValueError
            If no pixel of the crop lies in the part.
        """
        region, to_pixels = self._around(pose, side)
        pixels = to_input(self.pixels(region), self._card, self.ranges)
        return _warped(pixels, to_pixels, side).clip(0.0, self._ceiling)

    def original(self, pose: Pose, side: int) -> NDArray[np.generic]:
        """Return the same crop of the slide's own values, in their type.

        Raises
        ------
        ValueError
            If no pixel of the crop lies in the part.
        """
        region, to_pixels = self._around(pose, side)
        pixels = self.pixels(region)
        crop = _warped(pixels.astype(np.float32), to_pixels, side)
        return converted(crop, pixels.dtype.name)

    def _around(self, pose: Pose, side: int) -> tuple[Region, NDArray[np.float64]]:
        """Return the region that a crop is interpolated from, and the map from the crop's pixels to the region's."""
        to_pixels = self._matrix(pose, side)
        ends = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]]) - np.array([0.5, 0.5, 0])
        corners = ends @ to_pixels.T
        x0, y0 = np.floor(corners.min(axis=0)).astype(int) - 1
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 2
        region = Region(int(x0), int(y0), int(x1), int(y1)).within(self.grid.width, self.grid.height)
        if region is None:
            raise ValueError(f"{pose} lies outside the part")
        to_pixels[:, 2] -= region.x0, region.y0
        return region, to_pixels

    def valid(self, pose: Pose, side: int) -> NDArray[np.bool_]:
        """Return which pixels of a crop, ``(side, side)``, lie inside the part."""
        places = self._places(pose, side)
        last = self.grid.width - 0.5, self.grid.height - 0.5
        return np.asarray(((places >= -0.5) & (places <= last)).all(axis=1).reshape(side, side))

    def usable(self, pose: Pose, side: int) -> NDArray[np.bool_]:
        """Return which pixels of a crop, ``(side, side)``, lie inside the part and inside the mask that was given."""
        valid = self.valid(pose, side)
        return valid & self.tissue_at(pose, side) if self._masked else valid

    def tissue_at(self, pose: Pose, side: int) -> NDArray[np.bool_]:
        """Return which pixels of a crop, ``(side, side)``, lie on tissue."""
        places = self.grid.to_um(self._places(pose, side))
        return self._tissue.at(places).reshape(side, side)

    def tissue(self) -> NDArray[np.bool_]:
        """Return where there is tissue, ``(Y, X)`` on the part's grid."""
        return sample_nearest(self._tissue.pixels, self._tissue.grid, self.grid)

    def pixels(self, region: Region) -> NDArray[np.generic]:
        """Return the slide's own ``(C, Y, X)`` pixels of a region of the part's grid."""
        return self._stored.read(region.shifted(self._region.x0, self._region.y0))

    def _places(self, pose: Pose, side: int) -> NDArray[np.float64]:
        """Return where on the part's grid the pixels of a crop lie, ``(side * side, 2)``."""
        y, x = np.indices((side, side)).reshape(2, -1)
        return np.stack([x, y, np.ones_like(x)], axis=1) @ self._matrix(pose, side).T

    @property
    def _ceiling(self) -> float:
        return float(np.log1p(1.0)) if self._card.log else 1.0

    def _matrix(self, pose: Pose, side: int) -> NDArray[np.float64]:
        """Return the ``(2, 3)`` map from crop pixels to pixels of the part's grid."""
        linear = self.mpp * pose.linear
        start = np.array([pose.x, pose.y]) - linear @ np.full(2, (side - 1) / 2)
        offset = self.grid.to_pixels(start[None])[0]
        return np.column_stack([linear / [[self.grid.mpp_x], [self.grid.mpp_y]], offset])


def _warped(pixels: NDArray[np.float32], to_pixels: NDArray[np.float64], side: int) -> NDArray[np.float32]:
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    crop = [cv2.warpAffine(c, to_pixels, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101) for c in pixels]
    return np.stack(crop)


class PairReader:
    """Reads crops of both slides of a pair at the same place.

    Parameters
    ----------
    part : Part
        The pair, and the part of it that may be read.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slide.
    mpp : float
        Pixel size of the crops in µm; readable.
    whole_ranges : bool
        Measure the intensity ranges on the whole slides, as a run does, not on the pair's part of them alone.

    Raises
    ------
    SlideError
        If a slide's part has no pixels, no tissue or no contrast.
    """

    def __init__(
        self, part: Part, modalities: tuple[ModalityCard, ModalityCard], mpp: float, *, whole_ranges: bool = False
    ) -> None:
        self.mpp = mpp
        self.fixed, self.moving = (
            CropReader(slide, part.box, card.input, mpp, whole_ranges=whole_ranges)
            for slide, card in zip((part.pair.fixed, part.pair.moving), modalities, strict=True)
        )
        self._places = Places(part, mpp)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        """Nothing is held open."""

    def draw(self, rng: np.random.Generator, side: int) -> Pose:
        """Draw the pose of a crop centred on tissue of both slides, inside the part at every angle.

        Raises
        ------
        SlideError
            If the part is too small for that, or has no such tissue.
        """
        x, y = self._places.draw(rng, side).tolist()
        return Pose(x, y, float(rng.uniform(-np.pi, np.pi)), bool(rng.integers(2)))

    def read(
        self, pose: Pose, side: int, shift: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the crops of both slides, the moving one so many pixels beside the fixed one along x and y."""
        beside = pose._replace(x=pose.x + shift[0] * self.mpp, y=pose.y + shift[1] * self.mpp)
        return self.fixed.read(pose, side), self.moving.read(beside, side)

    def refusal(self, side: int) -> str:
        """Return why the part has no place for a crop; empty if it has one."""
        return self._places.refusal(side)

    def places(self, side: int) -> int:
        """Return how many crops, side by side, are tissue of both slides in at least half their area."""
        return self._places.count(side)


def shares(readers: Sequence[PairReader], side: int) -> NDArray[np.float64]:
    """Return how often to read crops from each reader, as shares: as often as it has room, never where it has no place.

    Raises
    ------
    SlideError
        If none has a place.
    """
    refusals = [reader.refusal(side) for reader in readers]
    if all(refusals):
        raise SlideError(refusals[-1])
    room = [0 if no else max(reader.places(side), 1) for reader, no in zip(readers, refusals, strict=True)]
    return np.array(room) / sum(room)


def _ranges(
    slide: ChunkedSlide, pixels: NDArray[np.generic], tissue: NDArray[np.bool_], card: Input
) -> tuple[Range, ...]:
    try:
        return intensity_range(pixels, tissue, card)
    except TaskError as error:
        raise SlideError(f"{slide.spec.path}: {error}") from error
