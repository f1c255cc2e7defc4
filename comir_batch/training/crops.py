"""Aligned crops of a pair of slides, read when they are asked for."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import cv2
import numpy as np

from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Region
from comir_batch.io.open import open_slide
from comir_batch.pipeline.overview import make_overview
from comir_batch.pipeline.working import working_level
from comir_batch.representation.normalise import intensity_range, to_input
from comir_batch.training.window import WHOLE, Box, Window
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from comir_batch.core.card import Input, ModalityCard
    from comir_batch.core.slide import SlideSpec
    from comir_batch.representation.normalise import Range


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """Two slides of the same tissue, aligned in µm, and the part of them that may be used.

    Attributes
    ----------
    fixed, moving : SlideSpec
        The slides, in the order of the model's modalities.
    box : Box
        The part, in µm.
    """

    fixed: SlideSpec
    moving: SlideSpec
    box: Box = WHOLE


class Pose(NamedTuple):
    """Where a crop lies: centre in µm, turn in radians, and whether it is mirrored along x first."""

    x: float
    y: float
    angle: float = 0.0
    mirrored: bool = False


class CropReader:
    """Reads normalised crops of one slide's window, anywhere and at any angle, at one pixel size.

    Parameters
    ----------
    window : Window
        The part of the slide that may be read.
    card : Input
        How pixels become the network's input.
    mpp : float
        Pixel size of the crops in µm.
    ranges : sequence of Range, optional
        Of the whole slide; measured on the window alone if there are none.
    """

    def __init__(self, window: Window, card: Input, mpp: float, ranges: Sequence[Range] | None = None) -> None:
        self._window, self._card, self._mpp = window, card, mpp
        working = working_level(window.info, mpp)
        self._level, self._factor, self.grid = working.level, working.factor, working.grid
        self._overview = make_overview(window)
        self.ranges = ranges or intensity_range(self._overview.pixels, self._overview.tissue, card)

    @property
    def limits(self) -> NDArray[np.float64]:
        """First and last pixel centre ``((x, y), (x, y))`` in µm of the slide."""
        return self.grid.corners_um()[[0, 3]] + self._window.origin_um

    def read(self, pose: Pose, side: int) -> NDArray[np.float32]:
        """Return a ``(C, side, side)`` crop, interpolated cubically from the working level.

        Raises
        ------
        ValueError
            If the crop leaves the window.
        """
        to_pixels = self._matrix(pose, side)
        ends = np.array([[0, 0, 1], [side, 0, 1], [0, side, 1], [side, side, 1]]) - np.array([0.5, 0.5, 0])
        corners = ends @ to_pixels.T
        x0, y0 = np.floor(corners.min(axis=0)).astype(int) - 1
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 2
        region = Region(int(x0), int(y0), int(x1), int(y1), self._level).within(self.grid.width, self.grid.height)
        if region is None:
            raise ValueError(f"{pose} lies outside the window")
        pixels = to_input(self.pixels(region), self._card, self.ranges)
        to_pixels[:, 2] -= region.x0, region.y0
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        crop = [
            cv2.warpAffine(c, to_pixels, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101) for c in pixels
        ]
        return np.stack(crop).clip(0.0, self._ceiling)

    def tissue(self) -> NDArray[np.bool_]:
        """Return where there is tissue, ``(Y, X)`` on the working grid."""
        mask, grid = self._overview.tissue, self._overview.grid
        x = grid.to_pixels(self.grid.to_um([[i, 0] for i in range(self.grid.width)]))[:, 0]
        y = grid.to_pixels(self.grid.to_um([[0, i] for i in range(self.grid.height)]))[:, 1]
        rows, columns = (np.rint(v).astype(int).clip(0, n - 1) for v, n in ((y, grid.height), (x, grid.width)))
        return np.asarray(mask[rows[:, None], columns])

    @property
    def _ceiling(self) -> float:
        return float(np.log1p(1.0)) if self._card.log else 1.0

    def _matrix(self, pose: Pose, side: int) -> NDArray[np.float64]:
        """Return the ``(2, 3)`` map from crop pixels to pixels of the working level."""
        cosine, sine, mirror = np.cos(pose.angle), np.sin(pose.angle), -1.0 if pose.mirrored else 1.0
        linear = self._mpp * np.array([[mirror * cosine, -sine], [mirror * sine, cosine]])
        start = np.array([pose.x, pose.y]) - linear @ np.full(2, (side - 1) / 2) - self._window.origin_um
        offset = self.grid.to_pixels(start[None])[0]
        return np.column_stack([linear / [[self.grid.mpp_x], [self.grid.mpp_y]], offset])

    def pixels(self, region: Region) -> NDArray[np.generic]:
        """Return the slide's own ``(C, Y, X)`` pixels of a region of the working grid."""
        f, level = self._factor, self._window.info.levels[self._level]
        finer = Region(region.x0 * f, region.y0 * f, region.x1 * f, region.y1 * f, self._level)
        inside = finer.within(level.width, level.height)
        pixels = self._window.read(inside or finer)
        return reduce_area(pixels, f) if f > 1 else pixels


class PairReader:
    """Reads crops of both slides of a pair at the same place.

    Parameters
    ----------
    pair : TrainingPair
        The slides, opened here.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slide.
    mpp : float
        Pixel size of the crops in µm.
    whole_ranges : bool
        Measure the intensity ranges on the whole slides, as a run does, not on the pair's part of them alone.
    """

    def __init__(
        self,
        pair: TrainingPair,
        modalities: tuple[ModalityCard, ModalityCard],
        mpp: float,
        *,
        whole_ranges: bool = False,
    ) -> None:
        with ExitStack() as stack:
            readers = []
            for spec, card in zip((pair.fixed, pair.moving), modalities, strict=True):
                window = stack.enter_context(Window(open_slide(spec), pair.box))
                ranges = slide_ranges(spec, card.input) if whole_ranges else None
                readers.append(CropReader(window, card.input, mpp, ranges))
            self.fixed, self.moving = readers
            self._stack = stack.pop_all()
        low = np.maximum(self.fixed.limits[0], self.moving.limits[0])
        high = np.minimum(self.fixed.limits[1], self.moving.limits[1])
        self._low, self._high, self._mpp = low, high, mpp

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def draw(self, rng: np.random.Generator, side: int) -> Pose:
        """Draw the pose of a crop that lies inside both slides' windows at every angle.

        Raises
        ------
        SlideError
            If the window is smaller than that.
        """
        margin = side * self._mpp * np.sqrt(0.5)
        low, high = self._low + margin, self._high - margin
        if (low > high).any():
            size = " x ".join(f"{length:.0f}" for length in self._high - self._low)
            raise SlideError(f"crops of {side} pixels need {2 * margin:.0f} µm, the window has {size} µm")
        x, y = rng.uniform(low, high)
        return Pose(float(x), float(y), float(rng.uniform(-np.pi, np.pi)), bool(rng.integers(2)))

    def read(self, pose: Pose, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the crops of both slides."""
        return self.fixed.read(pose, side), self.moving.read(pose, side)


def slide_ranges(spec: SlideSpec, card: Input) -> tuple[Range, ...]:
    """Return the intensity ranges of a whole slide, as a run measures them."""
    with open_slide(spec) as slide:
        overview = make_overview(slide)
    return intensity_range(overview.pixels, overview.tissue, card)


def disturbed(crop: ArrayLike, rng: np.random.Generator, strength: float) -> NDArray[np.float32]:
    """Return a crop with another gain, gamma and offset, blurred or noisy, as another scanner or stain would give.

    Parameters
    ----------
    crop : (C, Y, X) float32
        Normalised to 0..1.
    rng : numpy.random.Generator
        Source of chance.
    strength : float
        0 leaves the crop as it is, 1 is usual.
    """
    image = np.asarray(crop, dtype=np.float32)
    gamma = np.exp(strength * rng.uniform(-0.3, 0.3))
    gain, offset = np.exp(strength * rng.uniform(-0.35, 0.35)), strength * rng.uniform(-0.05, 0.05)
    image = np.clip(image, 0, None) ** np.float32(gamma) * np.float32(gain) + np.float32(offset)
    if rng.random() < 0.3 * strength:
        sigma = float(rng.uniform(0.3, 1.0))
        image = np.stack([cv2.GaussianBlur(channel, (0, 0), sigma) for channel in image])
    if rng.random() < 0.3 * strength:
        image += rng.normal(0, rng.uniform(0, 0.03), image.shape).astype(np.float32)
    return np.asarray(np.clip(image, 0, 1))
