"""Fields whose crops do not belong together, so that whoever accepts a transform of them is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.bench.fields import laid
from comir_batch.core.errors import SlideError
from comir_batch.training.crops import Pose
from comir_batch.training.known_rigid import find_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.bench.sample import Readers, Sample
    from comir_batch.training.crops import CropReader

_TRIES = 200
_LEAST_VALID = 0.85
_LEAST_TISSUE = 0.5
_CELLS = 32  # along a crop's side, to tell its share of tissue
_MOST_TISSUE = 0.02  # of what counts as background
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6  # white noise keeps its standard deviation


def neighbour(readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Take the moving crop from tissue of the same slides beside the fixed crop, without overlap, at any angle.

    Raises
    ------
    SlideError
        If the part has no such place.
    """
    here = readers[0]
    for _ in range(_TRIES):
        place = find_place(here.model, rng, truth, side).fixed
        pose = _beside(place, rng, side * here.model.mpp)
        reader = here.model.moving
        if reader.valid(pose, side).mean() >= _LEAST_VALID and reader.tissue_at(pose, side).mean() >= _LEAST_TISSUE:
            return laid(here, place, here, pose, side)
    raise SlideError(f"the part has no tissue for two crops of {side} pixels beside each other; take smaller ones")


def _beside(place: Pose, rng: np.random.Generator, length: float) -> Pose:
    """Return a pose at any angle whose square of a length in µm touches or misses that of an upright pose."""
    angle = rng.uniform(-math.pi, math.pi)
    apart = length / 2 * (1 + abs(math.cos(angle)) + abs(math.sin(angle)) + rng.uniform(0, 1))
    offset = np.array([rng.choice([-1.0, 1.0]) * apart, rng.uniform(-0.5, 0.5) * length])
    x, y = rng.permutation(offset)
    return Pose(place.x + float(x), place.y + float(y), angle)


def other_pair(readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Take the moving crop from another pair.

    Raises
    ------
    SlideError
        If there is no other, or one of them has no place.
    """
    here = readers[0]
    there = next((other for other in readers if other.pair != here.pair), None)
    if there is None:
        raise SlideError("there is only one pair to take crops from")
    place = find_place(here.model, rng, truth, side).fixed
    return laid(here, place, there, find_place(there.model, rng, truth, side).moving, side)


def flat(readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Replace the moving crop by its median and white noise as strong as its own."""
    here = readers[0]
    placement = find_place(here.model, rng, truth, side)
    sample = laid(here, placement.fixed, here, placement.moving, side)
    (fixed, moving), (fixed_grey, grey) = sample.inputs, sample.grey
    noise = rng.standard_normal(moving.shape, dtype=np.float32)
    blank = np.stack([_flattened(*planes) for planes in zip(moving, noise, strict=True)])
    blank_grey = _flattened(grey, noise.mean(axis=0) * math.sqrt(len(noise)))
    return replace(sample, inputs=(fixed, blank), grey=(fixed_grey, blank_grey))


def _flattened(plane: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the median and the noise of a plane, the latter as told by second differences (Immerkaer, CVIU 1996)."""
    strength = 1.4826 * np.median(np.abs(cv2.filter2D(plane, -1, _NOISE)))
    return np.asarray((np.median(plane) + strength * noise).clip(plane.min(), plane.max()), dtype=np.float32)


def background(readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Take the moving crop from where its slide has no tissue; all of its pixels count.

    Raises
    ------
    SlideError
        If there is no such place.
    """
    here = readers[0]
    place = find_place(here.model, rng, truth, side).fixed
    pose = _empty(here.model.moving, rng, side * here.model.mpp)
    sample = laid(here, place, here, pose, side)
    return replace(sample, masks=(sample.masks[0], here.model.moving.valid(pose, side)))


def _empty(reader: CropReader, rng: np.random.Generator, length: float) -> Pose:
    """Return an upright pose whose square of a length in µm has next to no tissue."""
    grid = reader.grid
    step = max(round(length / max(grid.mpp_x, grid.mpp_y) / _CELLS), 1)
    tissue = reader.tissue()[::step, ::step].astype(np.float32)
    size = round(length / grid.mpp_x / step), round(length / grid.mpp_y / step)
    inside, covered = (
        cv2.blur(plane, size, borderType=cv2.BORDER_CONSTANT) for plane in (np.ones_like(tissue), tissue)
    )
    rows, columns = np.nonzero((inside >= _LEAST_VALID) & (covered <= _MOST_TISSUE))
    if not len(rows):
        raise SlideError(f"the moving slide has no background as large as a crop of {length:.0f} µm")
    chosen = int(rng.integers(len(rows)))
    x, y = grid.to_um([[columns[chosen] * step, rows[chosen] * step]])[0].tolist()
    return Pose(x, y)
