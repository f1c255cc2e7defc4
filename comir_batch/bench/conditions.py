"""What is done to the fields of the registration benchmark.

Field `i` of a condition is the same whatever is measured on it: its part of the slides, its place and its transform
follow from the seed, the condition's place in the list and `i`. So new conditions go to the end of the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.bench.fields import BEND, bent, stiff
from comir_batch.bench.wrong_fields import background, flat, neighbour, other_pair
from comir_batch.core.errors import SlideError
from comir_batch.training.known_rigid import LEVELS, rigid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from comir_batch.bench.sample import Readers, Sample

    Draw = Callable[[np.random.Generator, int, int], NDArray[np.float64]]
    Make = Callable[[Sequence[Readers], np.random.Generator, NDArray[np.float64], int], Sample]

_SMALL_SIDE = 128
_SCALES = (0.9, 1.1)
_BENDS_PX = (5, 10, 20)


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
    kind : {"rigid", "similarity", "bent", "wrong"}
        What it takes to register the fields; "wrong" where they do not belong together.
    make : callable
        Takes readers, a generator, the drawn map and the side; gives the field, of the first readers if they do.
    """

    name: str
    title: str
    side: int
    draw: Draw
    angle: Literal["small", "any", "mirrored"] = "small"
    kind: Literal["rigid", "similarity", "bent", "wrong"] = "rigid"
    make: Make = stiff


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


def _scaled(rng: np.random.Generator, side: int, _index: int) -> NDArray[np.float64]:
    truth, scale = LEVELS[0].draw(rng, side), rng.uniform(*_SCALES)
    linear, centre = scale * truth[:, :2], np.full(2, (side - 1) / 2)
    return np.column_stack([linear, truth[:, :2] @ centre + truth[:, 2] - linear @ centre])


def conditions(side: int) -> tuple[Condition, ...]:
    """Return all conditions for fields of a side in pixels; the small ones have 128."""
    return (*_first(side), *_further(side), *_wrong(side))


def _first(side: int) -> tuple[Condition, ...]:
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
    bent_title = f"level 1, and bent by up to {BEND:.0%} of the side"
    return (
        *levels,
        Condition("any-angle", "any angle", side, _any_angle, "any"),
        Condition("mirrored", "any angle, mirrored", side, _mirrored, "mirrored"),
        Condition("half-overlap", "shifted by half the side, turn 0-5°", side, _half),
        *(small if side > _SMALL_SIDE else []),
        Condition("bent", bent_title, side, partial(_level, 0), kind="bent", make=bent),
    )


def _further(side: int) -> tuple[Condition, ...]:
    low, high = _SCALES
    scaled = Condition("scaled", f"level 1, and scaled by {low:g}-{high:g}", side, _scaled, kind="similarity")
    more = [
        Condition(
            f"bent-{px}",
            f"level 1, and bent by up to {px} px",
            side,
            partial(_level, 0),
            kind="bent",
            make=partial(bent, bend=px / side),
        )
        for px in _BENDS_PX
    ]
    return (scaled, *more)


def _wrong(side: int) -> tuple[Condition, ...]:
    of = [
        ("neighbour", "wrong: the place beside it, any angle", neighbour),
        ("other-pair", "wrong: a place of another pair, any angle", other_pair),
        ("blank", "blank: flat, with the slide's noise", flat),
        ("background", "blank: background alone", background),
    ]
    return tuple(Condition(name, title, side, _any_angle, "any", "wrong", make) for name, title, make in of)


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
    order = rng.permutation(len(readers))
    for turn in range(len(order)):
        try:
            return condition.make([readers[k] for k in np.roll(order, -turn)], rng, truth, condition.side)
        except SlideError as failure:
            error = failure
    raise error or SlideError("there is no part of the slides to draw fields from")
