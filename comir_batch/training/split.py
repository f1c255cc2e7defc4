"""Which parts of aligned pairs are learnt from, which choose the best checkpoint, and which nobody looks at."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid, Region
from comir_batch.training.places import has_tissue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.training.pairs import TrainingPair

_FEWEST_TO_DRAW_FROM = 5


class Box(NamedTuple):
    """A half-open part of a slide in µm: the level-0 pixels whose centres lie in ``[x0, x1) x [y0, y1)``."""

    x0: float = 0.0
    y0: float = 0.0
    x1: float = inf
    y1: float = inf

    def __str__(self) -> str:
        x, y = (
            f"{first:g} to {'the end' if last == inf else format(last, 'g')}"
            for first, last in ((self.x0, self.x1), (self.y0, self.y1))
        )
        return f"the part with x from {x} and y from {y} (µm)"

    def pixels(self, grid: Grid, mpp: tuple[float, float]) -> Region | None:
        """Return the pixels of a grid that are made of nothing but level-0 pixels of the box, or None.

        Parameters
        ----------
        grid : Grid
            Of means of level-0 pixels.
        mpp : (float, float)
            Size of a level-0 pixel along x and y in µm.
        """
        x = _range(self.x0, self.x1, (grid.origin_x, grid.mpp_x, grid.width), mpp[0])
        y = _range(self.y0, self.y1, (grid.origin_y, grid.mpp_y, grid.height), mpp[1])
        return Region(x[0], y[0], x[1], y[1]) if x[0] < x[1] and y[0] < y[1] else None


def _range(start: float, stop: float, axis: tuple[float, float, int], mpp: float) -> tuple[int, int]:
    origin, size, count = axis
    reach, slack = (size - mpp) / 2, 1e-6 * mpp
    centres = origin + size * np.arange(count)
    inside = np.flatnonzero((centres - reach >= start - slack) & (centres + reach < stop - slack))
    return (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)


WHOLE = Box()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pair, the same in µm on both slides."""

    pair: TrainingPair
    box: Box = WHOLE


@dataclass(frozen=True, slots=True)
class Split:
    """What is learnt from, what is watched while learning, and what is left for the end.

    Attributes
    ----------
    training, validation : tuple of Part
        Without a common pixel; no validation where none was asked for.
    unseen : tuple of Part
        What the region leaves out of each pair; empty if it leaves nothing out.
    """

    training: tuple[Part, ...]
    validation: tuple[Part, ...]
    unseen: tuple[Part, ...]


def split(pairs: Sequence[TrainingPair], region: tuple[float, float, float, float], share: float, seed: int) -> Split:
    """Split pairs into training and validation inside a region, and the unseen outside.

    Whole pairs are drawn for validation where there are five or more that have no slide in common; pairs that share a
    slide stay together. Of fewer, a strip at the end of each pair's region, across its longer side, is set apart: at
    the right or lower end, or at the other one if there is tissue of both slides only there.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        At least one.
    region : (float, float, float, float)
        Left, top, right and bottom as shares of the fixed slide's width and height.
    share : float
        Of the pairs, or of each region, for validation; 0 for none.
    seed : int
        Of the draw.

    Raises
    ------
    ConfigError
        If the region is none, leaves out more than one rectangle, or the share is not in 0 <= share < 1.
    """
    require_region(region)
    if not 0 <= share < 1:
        raise ConfigError(f"the share of validation is {share:g}; give 0 or more, and less than 1")
    parts = [Part(pair, _box(pair, region)) for pair in pairs]
    unseen = tuple(Part(pair, rest) for pair in pairs if (rest := _rest(pair, region)) is not None)
    if share == 0:
        return Split(tuple(parts), (), unseen)
    groups = _groups(pairs)
    if len(groups) < _FEWEST_TO_DRAW_FROM:
        strips = [_strips(part, share) for part in parts]
        return Split(tuple(first for first, _ in strips), tuple(last for _, last in strips), unseen)
    count = min(max(round(share * len(groups)), 1), len(groups) - 1)
    order = np.random.default_rng(seed).permutation(len(groups))
    drawn = {index for group in order[:count] for index in groups[group]}
    training, validation = (
        tuple(part for index, part in enumerate(parts) if (index in drawn) is wanted) for wanted in (False, True)
    )
    return Split(training, validation, unseen)


def require_region(region: tuple[float, float, float, float]) -> None:
    """Refuse what is no region, or leaves out more than one rectangle.

    Raises
    ------
    ConfigError
        If it is so.
    """
    left, top, right, bottom = region
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ConfigError(
            f"region {region} is not left, top, right, bottom as shares of the slide; give 0 <= left < right <= 1 and "
            "0 <= top < bottom <= 1"
        )
    if sum((left > 0, top > 0, right < 1, bottom < 1)) > 1:
        raise ConfigError(
            f"region {region} leaves out more than one rectangle; let it reach three sides of the slide, for example "
            "0, 0, 1, 0.75"
        )


def _box(pair: TrainingPair, region: tuple[float, float, float, float]) -> Box:
    width, height = pair.fixed.working.info.grid().size_um
    left, top, right, bottom = region
    return Box(
        left * width, top * height, inf if right == 1 else right * width, inf if bottom == 1 else bottom * height
    )


def _rest(pair: TrainingPair, region: tuple[float, float, float, float]) -> Box | None:
    inside = _box(pair, region)
    if inside.x0 > 0:
        return Box(x1=inside.x0)
    if inside.y0 > 0:
        return Box(y1=inside.y0)
    if inside.x1 < inf:
        return Box(x0=inside.x1)
    return Box(y0=inside.y1) if inside.y1 < inf else None


def _strips(part: Part, share: float) -> tuple[Part, Part]:
    """Cut an end with tissue off a part, across its longer side."""
    rest, strip = _cut(part, 1 - share)
    if not has_tissue(strip):
        other, remainder = _cut(part, share)
        if has_tissue(other):
            return remainder, other
    return rest, strip


def _cut(part: Part, at: float) -> tuple[Part, Part]:
    width, height = part.pair.fixed.working.info.grid().size_um
    box = part.box
    right, bottom = min(box.x1, width), min(box.y1, height)
    if right - box.x0 >= bottom - box.y0:
        cut = box.x0 + at * (right - box.x0)
        first, last = box._replace(x1=cut), box._replace(x0=cut)
    else:
        cut = box.y0 + at * (bottom - box.y0)
        first, last = box._replace(y1=cut), box._replace(y0=cut)
    return Part(part.pair, first), Part(part.pair, last)


def _groups(pairs: Sequence[TrainingPair]) -> list[list[int]]:
    """Return the numbers of the pairs in groups that have no slide in common."""
    groups: list[tuple[set[str], list[int]]] = []
    for index, pair in enumerate(pairs):
        slides, members = {pair.fixed.digest, pair.moving.digest}, [index]
        joined = [group for group in groups if group[0] & slides]
        for group in joined:
            groups.remove(group)
            slides |= group[0]
            members += group[1]
        groups.append((slides, members))
    return [sorted(members) for _, members in groups]
