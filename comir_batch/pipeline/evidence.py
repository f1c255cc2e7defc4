"""The evidence for and against a transform: both images, what registration found, and no files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.transform import BSpline, Composite
from comir_batch.quality.evidence import Evidence
from comir_batch.quality.plausibility import folding, overlap, shape, tissue_points
from comir_batch.quality.points import InverseError, TileError, disagreement
from comir_batch.quality.similarity import Layer, compare, tile_similarity
from comir_batch.registration.blocks import count_blocks, offsets
from comir_batch.registration.held_out import TILE
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.quality.points import BlockCounts, Landmarks
    from comir_batch.quality.similarity import Similarity
    from comir_batch.registration.fit import Attempt
    from comir_batch.registration.images import RegistrationImage, View

_INSIDE = 0.99
_REACH = TILE // 3  # pixels that a tile is looked for in


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What registration made of a pair.

    Attributes
    ----------
    view : str
        The view that the full fit used.
    start : Composite
        Fixed µm to moving µm before any registration.
    transform : Composite
        Fixed µm to moving µm.
    held_out : (Y, X) bool
        Pixels of the fixed grid that neither search nor fit saw.
    attempts : sequence of Attempt
        What the full fit took; only the last one has no error.
    other : Composite or None
        What the other view found, rigid and affine; None where only one found anything.
    backward : Composite or None
        What the same view found from the moving image to the fixed one, rigid and affine: moving µm to fixed µm.
        It tells nothing where the start bends, which it leaves out.
    backward_error : str
        Why that failed; empty if it did not.
    margin_nats : float or None
        By how much the start was likelier than any other one; None for one that the user gave.
    blocks : BlockCounts or None
        What became of the blocks; None where the pair was not refined by them.
    set_aside : bool
        Whether the other view's fit was made first, and set aside since this view's tells more.
    other_error : str
        Why the other view's fit to compare with failed; empty if it did not.
    """

    view: str
    start: Composite
    transform: Composite
    held_out: NDArray[np.bool_]
    attempts: Sequence[Attempt]
    other: Composite | None = None
    backward: Composite | None = None
    backward_error: str = ""
    margin_nats: float | None = None
    blocks: BlockCounts | None = None
    set_aside: bool = False
    other_error: str = ""


class Sight:
    """One view of the pair on the fixed grid: the fixed image, and the moving one before and after registration."""

    def __init__(self, view: View, found: Found) -> None:
        self.view = view
        self._fixed = Layer(view.fixed.pixels, view.fixed.mask & found.held_out)
        transforms = found.start, found.transform
        self._before, self._after = (_layer(view.moving, transform, view.fixed.grid) for transform in transforms)

    def similarity(self, seed: int) -> Similarity:
        """Compare on the tiles that no fit saw."""
        return compare(self._fixed, self._before, self._after, tile=TILE, metric=self.view.metric, seed=seed)

    def tiles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the similarity of each held-out tile before and after registration, NaN elsewhere."""
        before, after = (self._tiles(moving) for moving in (self._before, self._after))
        return before, after

    @property
    def errors_um(self) -> NDArray[np.float64]:
        """How far each held-out tile lies from where it fits best, NaN where that is not clear."""
        return np.asarray(np.linalg.norm(self._offsets * self._mpp, axis=-1))

    def tile_error(self) -> TileError | None:
        """Return what the errors come to; None if that is not clear for more tiles than it might be by chance."""
        tried = count_blocks(self._fixed.mask, TILE)
        return TileError.of(self._offsets, self._mpp, tried)

    @cached_property
    def _offsets(self) -> NDArray[np.float64]:
        fixed, moving = ((layer.pixels, layer.mask) for layer in (self._fixed, self._after))
        return offsets(fixed, moving, self.view.metric, TILE, _REACH)

    @property
    def _mpp(self) -> tuple[float, float]:
        return self.view.fixed.grid.mpp_x, self.view.fixed.grid.mpp_y

    def _tiles(self, moving: Layer) -> NDArray[np.float64]:
        values, weights = tile_similarity(self._fixed, moving, tile=TILE, metric=self.view.metric)
        return np.where(weights > 0, values, np.nan)


def sights(views: Sequence[View], found: Found) -> dict[str, Sight]:
    """Return the views of a pair, one of which is `raw`, as a transform lays them on each other, by name."""
    return {view.name: Sight(view, found) for view in views}


def gather(
    seen: Mapping[str, Sight],
    found: Found,
    seed: int,
    model: tuple[str, int] | None,
    landmarks: Landmarks | None = None,
) -> Evidence:
    """Return everything that the verdict on a pair rests on.

    Parameters
    ----------
    seen : mapping of Sight
        As `sights` returns them.
    found : Found
        What they were made with.
    seed : int
        Of the wrong alignments.
    model : (str, int) or None
        Name of the model and number of slides that it learnt from.
    landmarks : Landmarks or None
        What they say, where there are any.
    """
    raw = seen["raw"].view
    points = tissue_points(raw.fixed.mask, raw.fixed.grid)
    similarities = {name: sight.similarity(seed) for name, sight in seen.items()}
    name, slides = model or ("", 0)
    *failed, last = found.attempts
    return Evidence(
        registered_from="comir" if found.view == "comir" else "raw",
        shape=shape(found.transform, points),
        folding=folding(found.transform, points, step_um=raw.fixed.grid.mpp_x),
        overlap=overlap(found.transform, (raw.fixed.mask, raw.fixed.grid), (raw.moving.mask, raw.moving.grid)),
        raw=similarities["raw"],
        comir=similarities.get("comir"),
        model=name,
        model_slides=slides,
        disagreement_um=None if found.other is None else disagreement(_linear(found), found.other, points),
        margin_nats=found.margin_nats,
        inverse=_inverse(found, points, raw.fixed.grid),
        backward_error=found.backward_error,
        failed=tuple(attempt.error for attempt in failed),
        fitted=last.name,
        landmarks=landmarks,
        tile_error=seen[found.view].tile_error(),
        blocks=found.blocks,
        set_aside=found.set_aside,
        other_error=found.other_error,
    )


def _layer(image: RegistrationImage, transform: Composite, grid: Grid) -> Layer:
    """Resample an image and its mask on the fixed grid; only pixels made of tissue alone count."""
    stack = np.stack([image.pixels, image.mask.astype(np.float32)])
    pixels, mask = warp_array(stack, image.grid, transform, grid).astype(np.float32)
    return Layer(pixels, mask > _INSIDE)


def _linear(found: Found) -> Composite:
    """Return the transform less what fit and blocks bend, to which the fits that it is compared with do not come."""
    own = [part.to_dict() for part in _bends(found.start)]
    bent = [part for part in _bends(found.transform) if part.to_dict() not in own]
    return Composite(tuple(part for part in found.transform.parts if all(part is not each for each in bent)))


def _bends(transform: Composite) -> list[BSpline]:
    return [part for part in transform.parts if isinstance(part, BSpline)]


def _inverse(found: Found, points: NDArray[np.float64], grid: Grid) -> InverseError | None:
    if found.backward is None or _bends(found.start):  # the fit back does not bend, so it cannot undo such a start
        return None
    return InverseError.of(_linear(found), found.backward, points, max(grid.mpp_x, grid.mpp_y))
