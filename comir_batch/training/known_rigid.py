"""Crops of aligned slides under a known rigid transform, and how well it is found again.

The four levels are those of MultiRegEval (Lu et al., PLOS ONE 2022): turns of 0-5, 5-10, 10-15 and 15-20 degrees with
shifts of 0-7, 7-14, 14-21 and 21-28 pixels of 300 along each axis, either sign; a transform counts as found if the
corners lie within 2 % of the side on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import SlideError
from comir_batch.registration.quick import quick_rigid
from comir_batch.representation.one_image import as_one_image
from comir_batch.training.crops import Pose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from comir_batch.training.crops import PairReader

    Image = NDArray[np.float32]
    Represent = Callable[[Image], Image]

FOUND = 0.02
"""Largest mean corner error, as a share of the side, of a transform that counts as found."""
_LEAST_VALID = 0.85
_TRIES = 200


class Level(NamedTuple):
    """Half-open ranges of the turn in degrees, and of the shift along each axis as a share of the side."""

    turn: tuple[float, float]
    shift: tuple[float, float]

    def draw(self, rng: np.random.Generator, side: int) -> NDArray[np.float64]:
        """Return a ``(2, 3)`` transform of crops of `side` pixels; every sign is drawn by itself."""
        low, high = np.array([self.turn, self.shift, self.shift]).T
        turn, x, y = rng.choice([-1.0, 1.0], 3) * rng.uniform(low, high)
        return rigid(turn, (x * side, y * side), side)


LEVELS = tuple(Level((5.0 * k, 5.0 * (k + 1)), (k * 7 / 300, (k + 1) * 7 / 300)) for k in range(4))


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Two crops of one place, the moving one under a known transform.

    Attributes
    ----------
    fixed, moving : (C, S, S) float32
        Normalised; resampled from the slides once.
    fixed_valid, moving_valid : (S, S) bool
        Pixels inside the part of the slides that may be read, and inside masks that were given.
    truth : (2, 3) float64
        Maps pixels ``(x, y)`` of the fixed crop to pixels of the moving crop.
    """

    fixed: Image
    moving: Image
    fixed_valid: NDArray[np.bool_]
    moving_valid: NDArray[np.bool_]
    truth: NDArray[np.float64]


def rigid(turn_deg: float, shift: ArrayLike, side: int, *, mirrored: bool = False) -> NDArray[np.float64]:
    """Return the ``(2, 3)`` map of pixels that mirrors x, if wanted, turns about the crop's centre, and shifts."""
    cosine, sine = math.cos(math.radians(turn_deg)), math.sin(math.radians(turn_deg))
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    centre = np.full(2, (side - 1) / 2)
    return np.column_stack([linear, centre - linear @ centre + np.asarray(shift)])


class Placement(NamedTuple):
    """Where the crops of a field lie on the slides, and the map of fixed to moving pixels that follows."""

    fixed: Pose
    moving: Pose
    truth: NDArray[np.float64]


def draw_field(reader: PairReader, rng: np.random.Generator, level: int, side: int) -> Field:
    """Draw a transform of ``LEVELS[level]`` and a place for it, and read the two crops.

    Raises
    ------
    SlideError
        If the part has no place for them.
    """
    return read_field(reader, find_place(reader, rng, LEVELS[level].draw(rng, side), side), side)


def find_place(reader: PairReader, rng: np.random.Generator, truth: NDArray[np.float64], side: int) -> Placement:
    """Draw places until the fixed crop, which is upright, lies in the part, and 85 % of the moving one do.

    Raises
    ------
    SlideError
        If the part has no such place.
    """
    upright = math.ceil(side * math.sqrt(0.5))  # a crop so large that may be turned anyhow holds an upright one
    for _ in range(_TRIES):
        place = reader.draw(rng, upright)._replace(angle=0.0, mirrored=False)
        pose = moving_pose(place, truth, side, reader.mpp)
        if reader.moving.valid(pose, side).mean() >= _LEAST_VALID:
            return Placement(place, pose, truth)
    raise SlideError(
        f"no place was found where a crop of {side} pixels ({side * reader.mpp:.0f} µm) and its moved partner lie in "
        "the part of the slides that may be read; take smaller crops, or a larger part"
    )


def has_room(reader: PairReader, side: int) -> bool:
    """Tell whether a part has a place for a field under the largest transforms."""
    rng = np.random.default_rng(0)
    try:
        find_place(reader, rng, LEVELS[-1].draw(rng, side), side)
    except SlideError:
        return False
    return True


def read_field(reader: PairReader, placement: Placement, side: int) -> Field:
    """Read the crops of a placement."""
    fixed, moving, truth = placement
    return Field(
        reader.fixed.read(fixed, side),
        reader.moving.read(moving, side),
        reader.fixed.usable(fixed, side),
        reader.moving.usable(moving, side),
        truth,
    )


def moving_pose(place: Pose, truth: NDArray[np.float64], side: int, mpp: float) -> Pose:
    """Return where the moving crop lies, if the fixed one lies upright at a place and `truth` maps its pixels."""
    centre = np.full(2, (side - 1) / 2)
    back = np.linalg.inv(truth[:, :2])
    x, y = (place.x, place.y) - mpp * back @ (truth[:, :2] @ centre + truth[:, 2] - centre)
    determinant = float(np.linalg.det(back))
    scale = round(math.sqrt(abs(determinant)), 12)  # exactly 1 for a rigid map
    return Pose(float(x), float(y), math.atan2(-back[0, 1], back[1, 1]), determinant < 0, scale)


def corner_error(found: ArrayLike, truth: ArrayLike, side: int) -> float:
    """Return the mean distance in pixels between where two ``(2, 3)`` maps take the four corners of a crop."""
    last = side - 1
    corners = np.array([[0, last, 0, last], [0, 0, last, last], [1, 1, 1, 1]])
    apart = (np.asarray(found, dtype=np.float64) - np.asarray(truth, dtype=np.float64)) @ corners
    return float(np.linalg.norm(apart, axis=0).mean())


def success(represent: tuple[Represent, Represent], fields: Sequence[Field]) -> float:
    """Return the share of fields whose transform is found from their representations (see `field_error`)."""
    return float(np.mean([field_error(represent, field) <= FOUND for field in fields]))


def field_error(represent: tuple[Represent, Represent], field: Field) -> float:
    """Return how far off a field's transform is found from its representations by `quick_rigid`.

    Parameters
    ----------
    represent : (callable, callable)
        For the fixed and for the moving crop: ``(C, S, S)`` to ``(latent, S, S)``.
    field : Field
        The crops.

    Returns
    -------
    float
        Mean corner error as a share of the side, at most 1; 1 where nothing is found.
    """
    first, second = (run(crop) for run, crop in zip(represent, (field.fixed, field.moving), strict=True))
    masks = field.fixed_valid, field.moving_valid
    found = quick_rigid(*as_one_image((first, second), masks), *masks)
    side = field.fixed.shape[-1]
    return 1.0 if found is None else min(corner_error(found, field.truth, side) / side, 1.0)
