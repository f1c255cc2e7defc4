"""Fields of aligned slides under known transforms, for the registration benchmark."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.bench.known_motion import Motion, move
from comir_batch.bench.sample import Readers, Sample
from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.training.known_rigid import find_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.training.crops import PairReader, Pose

BEND = 0.03
"""Largest displacement of the fields that are bent by a share of the side."""
_WIDER = 1.3  # the image that is deformed, against the field that is cut from it
_LANDMARKS = 12  # along each side of a deformed field
_LEAST_VALID = 0.85
_SPACING = 0.25  # of control points, as a share of the side
_LEAST_SPACING = 4.0  # in largest displacements: closer control points would fold


def laid(fixed: Readers, place: Pose, moving: Readers, pose: Pose, side: int) -> Sample:
    """Return the crops of two places without saying how they belong together."""
    mpp = fixed.model.mpp
    grid = Grid(side, side, mpp, mpp)
    return Sample(
        (fixed.model.fixed.read(place, side), moving.model.moving.read(pose, side)),
        (fixed.raw.fixed.read(place, side)[0], moving.raw.moving.read(pose, side)[0]),
        (fixed.model.fixed.usable(place, side), moving.model.moving.usable(pose, side)),
        grid,
        None,
        grid.corners_um(),
    )


def stiff(readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Turn and shift a field, and perhaps mirror or scale it."""
    here = readers[0]
    placement = find_place(here.model, rng, truth, side)
    sample = laid(here, placement.fixed, here, placement.moving, side)
    return replace(sample, truth=sample.in_um(truth))


def bent(
    readers: Sequence[Readers], rng: np.random.Generator, truth: NDArray[np.float64], side: int, *, bend: float = BEND
) -> Sample:
    """Bend and turn a wider piece of the moving slide, and cut the field from it; it is resampled twice.

    Parameters
    ----------
    readers : sequence of Readers
        The first is read.
    rng : Generator
        Draws place and deformation.
    truth : (2, 3) float64
        Fixed to moving pixels, without the deformation.
    side : int
        Of the field, in pixels.
    bend : float
        Largest displacement of the deformation as a share of the side.
    """
    model, raw, _ = readers[0]
    place = find_place(model, rng, truth, side).fixed
    motion, wide = _motion(rng, truth, side, model.mpp, bend), _wide(side, bend)
    inputs, mask, moved = _moved(model, place, motion, (side, wide))
    grey, _, _ = _moved(raw, place, motion, (side, wide))
    if mask.mean() < _LEAST_VALID:
        raise SlideError(f"a bent field of {side} pixels does not lie in the part of the slides that may be read")
    grid, fixed_mask = Grid(side, side, model.mpp, model.mpp), model.fixed.usable(place, side)
    return Sample(
        (model.fixed.read(place, side), inputs),
        (raw.fixed.read(place, side)[0], grey[0]),
        (fixed_mask, mask),
        grid,
        moved,
        _landmarks(grid, moved, fixed_mask, mask),
    )


def _motion(rng: np.random.Generator, truth: NDArray[np.float64], side: int, mpp: float, bend: float) -> Motion:
    turn = math.degrees(math.atan2(truth[1, 0], truth[0, 0]))
    middle = np.full(2, (side - 1) / 2)
    x, y = mpp * (truth[:, :2] @ middle + truth[:, 2] - middle)
    seed = int(rng.integers(2**31))
    spacing = max(_SPACING, _LEAST_SPACING * bend) * side * mpp
    return Motion(turn, (x, y), amplitude_um=bend * side * mpp, spacing_um=spacing, seed=seed)


def _wide(side: int, bend: float) -> int:
    """Return the side of the piece that is bent; even or odd as the field's, so that their pixels coincide."""
    share = _WIDER + 2 * max(bend - BEND, 0)
    return 2 * math.ceil(share * side / 2) + side % 2


def _moved(
    reader: PairReader, place: Pose, motion: Motion, sides: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Composite]:
    """Return the moved field, which of its pixels are valid, and the map of fixed to moving µm of the field."""
    side, wide = sides
    margin = (wide - side) // 2
    grid = Grid(wide, wide, reader.mpp, reader.mpp, -margin * reader.mpp, -margin * reader.mpp)
    pixels, moved_grid, truth = move(reader.moving.read(place, wide), grid, motion)
    valid = move(reader.moving.usable(place, wide)[None].astype(np.float32), grid, motion)[0][0]
    middle = np.full((1, 2), (side - 1) / 2 * reader.mpp)
    unbent = truth.parts[-1].map(middle)[0] - motion.shift_um
    x, y = np.rint(moved_grid.to_pixels(unbent[None])[0] - (side - 1) / 2).astype(int)
    cut = np.s_[y : y + side, x : x + side]
    back = Affine(np.eye(2), -moved_grid.to_um([[x, y]])[0])
    return np.asarray(pixels[:, *cut], np.float32), valid[cut] > 0.99, truth.then(back)


def _landmarks(
    grid: Grid, truth: Composite, fixed_mask: NDArray[np.bool_], moving_mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return points of a lattice that are valid on both crops."""
    along = (np.arange(_LANDMARKS) + 0.5) * grid.width / _LANDMARKS - 0.5
    pixels = np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)
    points = grid.to_um(pixels)
    there = np.rint(grid.to_pixels(truth.map(points))).astype(int)
    inside = ((there >= 0) & (there < grid.width)).all(axis=1)
    x, y = there.clip(0, grid.width - 1).T
    fixed_x, fixed_y = np.rint(pixels).astype(int).T
    return np.asarray(points[inside & moving_mask[y, x] & fixed_mask[fixed_y, fixed_x]])
