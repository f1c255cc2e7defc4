"""Images that are looked for: opened, represented by their modality's network, and brought to a slide's pixel size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import MissingPixelSizeError, ModelError, SlideError
from comir_batch.core.geometry import Region
from comir_batch.core.transform import Composite
from comir_batch.io.open import open_slide
from comir_batch.pipeline.model_choice import choose_model
from comir_batch.pipeline.overview import make_overview
from comir_batch.pipeline.strips import read_reduced
from comir_batch.pipeline.working import working_level
from comir_batch.representation.normalise import intensity_range
from comir_batch.representation.weights import load
from comir_batch.retrieval.cells import represented_mask
from comir_batch.retrieval.templates import Query
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import PixelSource, SlideSpec
    from comir_batch.pipeline.representing import RepresentedSlide
    from comir_batch.representation.device import Device
    from comir_batch.representation.store import Model

LARGEST, SMALLEST = 4096, 48
"""Pixels a side, near the model's pixel size, of the largest and the smallest image that may be looked for."""
_ROOM = 1.25  # times as long as a slide's sides those of an image may be that is looked for in it


@dataclass(frozen=True, slots=True, eq=False)
class QueryImage:
    """An image that is looked for.

    Attributes
    ----------
    query : Query
        Its representation.
    grid : Grid
        Its working level's pixels in µm.
    thumbnail : (C, Y, X)
        In the image's dtype.
    """

    query: Query
    grid: Grid
    thumbnail: NDArray[np.generic]

    def at(self, mpp: float) -> QueryImage:
        """Return the image at square pixels of so many µm; itself where that moves none of it by half of one."""
        grid, (width, height) = self.grid, (side / mpp for side in self.grid.size_um)
        if abs(width - grid.width) <= 1 and abs(height - grid.height) <= 1:
            return self
        target = grid.coarser(mpp / grid.mpp_x, mpp / grid.mpp_y, max(round(width), 1), max(round(height), 1))
        planes = np.stack([np.where(self.query.mask, self.query.pixels, 0), self.query.mask]).astype(np.float32)
        total, inside = warp_array(planes, grid, Composite(), target).astype(np.float32)
        return replace(self, query=Query(total / np.maximum(inside, 1e-6), inside > 0.5), grid=target)


def open_query(
    spec: SlideSpec,
    modality: str,
    model: Model,
    device: Device = "auto",
    searched: Sequence[Grid] = (),
    say: Callable[[str], object] = lambda _text: None,
) -> QueryImage:
    """Read and represent an image that fits in memory, and is no larger than what it is looked for in.

    Raises
    ------
    SlideError
        If it cannot be read, is too large or too small, or has no pixels that count.
    ModelError
        If the model does not fit it.
    """
    with _opened(spec) as source:
        info = source.info
        choose_model(str(model.folder), (modality, info), (modality, info))
        working = working_level(info, model.card.mpp)
        grid, level = working.grid, info.grid(working.level)
        require_size(str(spec.path), grid)
        require_room(str(spec.path), grid, searched, say)
        overview = make_overview(source)
        whole = Region(0, 0, level.width, level.height, working.level)
        pixels = read_reduced(source.read, whole, working.factor, info.pixel_bytes)
    card = model.card.modality(modality)
    mask = np.isfinite(pixels).all(axis=0)
    if not mask.any():
        raise SlideError(f"{spec.path} has no finite pixels; check the image")
    ranges = intensity_range(pixels, mask, card.input)
    network = load(model, modality, device)
    size = (grid.width, grid.height)
    made = network.represent(lambda region: pixels[:, *region.slices], size, Region(0, 0, *size), ranges)
    return QueryImage(Query(made[0], mask), grid, overview.pixels)


def _opened(spec: SlideSpec) -> PixelSource:
    try:
        return open_slide(spec)
    except MissingPixelSizeError as error:
        raise MissingPixelSizeError(f"{spec.path} has no pixel size; give --mpp, or a column mpp") from error


def represented_query(slide: RepresentedSlide) -> QueryImage:
    """Load a slide that is represented already."""
    grid = slide.grid
    pixels = slide.read(Region(0, 0, grid.width, grid.height))[0]
    return QueryImage(Query(pixels, represented_mask(pixels)), grid, slide.overview().pixels)


def require_known(model: Model, modality: str) -> None:
    """Refuse a modality that a model has no network for; raises ModelError."""
    if not model.card.knows(modality):
        known = " and ".join(card.modality for card in model.card.modalities)
        raise ModelError(f"the model {model.card.name} knows {known}, not {modality}; name the modality so")


def require_size(name: str, grid: Grid) -> None:
    """Refuse an image that is too large or too small to be looked for; raises SlideError."""
    have = f"{name} has {grid.width} x {grid.height} pixels of {grid.mpp_x:.3g} µm"
    if max(grid.width, grid.height) > LARGEST:
        raise SlideError(f"{have}; at most {LARGEST} a side can be looked for: cut it, or index it")
    if min(grid.width, grid.height) < SMALLEST:
        raise SlideError(f"{have}; give one with {SMALLEST} a side at least")


def require_room(name: str, grid: Grid, searched: Sequence[Grid], say: Callable[[str], object]) -> None:
    """Refuse an image that is markedly larger than all slides that are searched, and say so if it is than some.

    Raises
    ------
    SlideError
        If it is.
    """
    cramped = [slide for slide in searched if not _has_room(slide, grid)]
    if not cramped:
        return
    largest = max(cramped, key=lambda slide: max(slide.size_um))
    which = "all" if len(cramped) == len(searched) else f"{len(cramped)} of the {len(searched)}"
    have = f"{name} is {_size(grid)}, larger than {which} slides that are searched (up to {_size(largest)})"
    remedy = "cut it to their size, or index it and look for them"
    if len(cramped) == len(searched):
        raise SlideError(f"{have}; {remedy}")
    say(f"{have}, and is hardly found in those; {remedy}")


def _has_room(slide: Grid, image: Grid) -> bool:
    return all(of <= _ROOM * here for of, here in zip(sorted(image.size_um), sorted(slide.size_um), strict=True))


def _size(grid: Grid) -> str:
    return f"{grid.size_um[0]:.0f} x {grid.size_um[1]:.0f} µm"
