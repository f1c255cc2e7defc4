"""Fields of aligned slides under known transforms, for the registration benchmark.

Field `i` of a condition is the same whatever is measured on it: its part of the slides, its place and its transform
follow from the seed, the condition and `i`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.training.known_rigid import LEVELS, find_place, read_field, rigid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from comir_batch.training.crops import PairReader, Pose

_SMALL_SIDE = 128
_BEND = 0.03  # largest displacement of the deformed fields, as a share of the side
_WIDER = 1.3  # the image that is deformed, against the field that is cut from it
_LANDMARKS = 12  # along each side of a deformed field
_LEAST_VALID = 0.85


@dataclass(frozen=True, slots=True)
class Condition:
    """What is done to fields.

    Attributes
    ----------
    name : str
        For the records.
    title : str
        For the table.
    side : int
        Of the fields, in pixels.
    draw : callable
        Takes a generator, the side and the field's number; gives the ``(2, 3)`` map of fixed to moving pixels.
    angle : {"small", "any", "mirrored"}
        Within 20 degrees; any; any, and mirrored.
    bent : bool
        Whether a smooth deformation comes on top.
    """

    name: str
    title: str
    side: int
    draw: Callable[[np.random.Generator, int, int], NDArray[np.float64]]
    angle: str = "small"
    bent: bool = False


def _level(level: int, rng: np.random.Generator, side: int, _index: int) -> NDArray[np.float64]:
    return LEVELS[level].draw(rng, side)


def _every_level(rng: np.random.Generator, side: int, index: int) -> NDArray[np.float64]:
    return LEVELS[index % len(LEVELS)].draw(rng, side)


def _any_angle(rng: np.random.Generator, side: int, _index: int) -> NDArray[np.float64]:
    return rigid(rng.uniform(-180, 180), _any_shift(rng, side), side)


def _mirrored(rng: np.random.Generator, side: int, _index: int) -> NDArray[np.float64]:
    return rigid(rng.uniform(-180, 180), _any_shift(rng, side), side, mirrored=True)


def _any_shift(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    return rng.uniform(-1, 1, 2) * LEVELS[-1].shift[1] * side


def _half(rng: np.random.Generator, side: int, _index: int) -> NDArray[np.float64]:
    shift = np.zeros(2)
    shift[rng.integers(2)] = rng.choice([-0.5, 0.5]) * side
    return rigid(rng.choice([-1.0, 1.0]) * rng.uniform(*LEVELS[0].turn), shift, side)


def conditions(side: int) -> tuple[Condition, ...]:
    """Return all conditions for fields of a side in pixels; the small ones have 128."""
    levels = [
        Condition(
            f"level-{k + 1}",
            f"level {k + 1}: turn {level.turn[0]:g}-{level.turn[1]:g}°, shift {level.shift[0] * side:.0f}-"
            f"{level.shift[1] * side:.0f} px of {side}",
            side,
            partial(_level, k),
        )
        for k, level in enumerate(LEVELS)
    ]
    small = [Condition("small", f"levels 1-4 in turn, fields of {_SMALL_SIDE} px", _SMALL_SIDE, _every_level)]
    return (
        *levels,
        Condition("any-angle", "any angle", side, _any_angle, "any"),
        Condition("mirrored", "any angle, mirrored", side, _mirrored, "mirrored"),
        Condition("half-overlap", "shifted by half the side, turn 0-5°", side, _half),
        *(small if side > _SMALL_SIDE else []),
        Condition("bent", f"level 1, and bent by up to {_BEND:.0%} of the side", side, partial(_level, 0), bent=True),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A field as every method sees it, and the truth.

    Attributes
    ----------
    inputs : ((C, S, S), (C, S, S)) float32
        Fixed and moving crop, normalised as the model's card says.
    grey : ((S, S), (S, S)) float32
        Mean over channels, 0 to 1 between percentiles of the tissue, as a run compares raw images.
    masks : ((S, S), (S, S)) bool
        Pixels inside the part of the slides that may be read, and inside masks that were given.
    grid : Grid
        Of both crops; begins at (0, 0).
    truth : Composite
        Fixed µm to moving µm.
    points : (N, 2) float64
        Where errors are measured, in µm: the corners, or landmarks that lie on both crops where the field is bent.
    """

    inputs: tuple[NDArray[np.float32], NDArray[np.float32]]
    grey: tuple[NDArray[np.float32], NDArray[np.float32]]
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    grid: Grid
    truth: Composite
    points: NDArray[np.float64]

    def errors_px(self, found: Composite) -> NDArray[np.float64]:
        """Return the distances in pixels between where the points are mapped and where they belong."""
        apart = found.map(self.points) - self.truth.map(self.points)
        return np.asarray(np.linalg.norm(apart, axis=1) / self.grid.mpp_x)

    @property
    def unbent_px(self) -> float:
        """Mean error that the truth without its deformation has; 0 where there is none."""
        stiff = Composite(tuple(part for part in self.truth.parts if isinstance(part, Affine)))
        return float(self.errors_px(stiff).mean())

    def in_um(self, matrix: NDArray[np.float64]) -> Composite:
        """Return a ``(2, 3)`` map of pixels as a transform."""
        return Composite((Affine(matrix[:, :2], matrix[:, 2] * self.grid.mpp_x),))


Readers = tuple["PairReader", "PairReader"]
"""Two readers of one part: one gives the model's inputs, the other one grey channel."""


def draw_sample(readers: Sequence[Readers], condition: Condition, index: int, seed: Sequence[int]) -> Sample:
    """Draw field `index` of a condition.

    Raises
    ------
    SlideError
        If no part has a place for it.
    """
    rng = np.random.default_rng([*seed, index])
    truth = condition.draw(rng, condition.side, index)
    error: SlideError | None = None
    for number in rng.permutation(len(readers)):
        try:
            return (_bent if condition.bent else _stiff)(readers[number], rng, truth, condition.side)
        except SlideError as failure:
            error = failure
    raise error or SlideError("there is no part of the slides to draw fields from")


def _stiff(readers: Readers, rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    model, raw = readers
    placement = find_place(model, rng, truth, side)
    field, grey = read_field(model, placement, side), read_field(raw, placement, side)
    grid = Grid(side, side, model.mpp, model.mpp)
    return Sample(
        (field.fixed, field.moving),
        (grey.fixed[0], grey.moving[0]),
        (field.fixed_valid, field.moving_valid),
        grid,
        Composite((Affine(truth[:, :2], truth[:, 2] * grid.mpp_x),)),
        grid.corners_um(),
    )


def _bent(readers: Readers, rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Sample:
    """Bend and turn a wider piece of the moving slide, and cut the field from it; it is resampled twice."""
    model, raw = readers
    place = find_place(model, rng, truth, side).fixed
    motion = _motion(rng, truth, side, model.mpp)
    inputs, mask, moved = _moved(model, place, motion, side)
    grey, _, _ = _moved(raw, place, motion, side)
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


def _motion(rng: np.random.Generator, truth: NDArray[np.float64], side: int, mpp: float) -> Motion:
    turn = math.degrees(math.atan2(truth[1, 0], truth[0, 0]))
    middle = np.full(2, (side - 1) / 2)
    x, y = mpp * (truth[:, :2] @ middle + truth[:, 2] - middle)
    seed = int(rng.integers(2**31))
    return Motion(turn, (x, y), amplitude_um=_BEND * side * mpp, spacing_um=side * mpp / 4, seed=seed)


def _moved(
    reader: PairReader, place: Pose, motion: Motion, side: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], Composite]:
    """Return the moved field, which of its pixels are valid, and the map of fixed to moving µm of the field."""
    wide = 2 * math.ceil(_WIDER * side / 2) + side % 2  # so that pixels of field and piece coincide
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
