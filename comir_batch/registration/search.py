"""The global start: every rotation and both mirrorings, every shift by FFT; coarse first, finer about the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.images import RegistrationImage
from comir_batch.registration.scores import Correlation, Information, Scorer, Transforms
from comir_batch.registration.turntable import Turntable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Affine
    from comir_batch.registration.images import View
    from comir_batch.registration.turntable import Peak

ScorerKind = Callable[[RegistrationImage, RegistrationImage, Transforms, float], Scorer]
"""Makes a scorer of a fixed and a moving image, the FFTs' size and the least overlap in pixels."""

_COARSE = 3 / 8  # of the search's side
_KEPT, _TURNED = 12, 4  # coarse peaks that are looked at more finely, and of those the ones that are turned, too
_SLOPE_DEG = 15.0  # about a peak: what lies as near is the same peak, if its shift is as near as a quarter of the image
_FINE_DEG = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A start that the search found.

    Attributes
    ----------
    transform : Affine
        Rotation, perhaps a mirroring, and shift: fixed µm to moving µm.
    view : {"comir", "raw"}
        Which view found it.
    angle : float
        Degrees.
    mirrored : bool
        Whether x is mirrored before the rotation.
    score : float
        Of the view's metric.
    z : float
        How far the best score at the nearest coarse angle lies above those of other angles, in robust standard
        deviations.
    """

    transform: Affine
    view: Literal["comir", "raw"]
    angle: float
    mirrored: bool
    score: float
    z: float


class Searched(NamedTuple):
    """What a search found.

    Attributes
    ----------
    level : Level
        The fine one.
    coarse : list of Peak
        The best shift at every angle.
    fine : list of Peak
        Those about the best of them, at the fine level.
    """

    level: Level
    coarse: list[Peak]
    fine: list[Peak]


class Level:
    """Two images at one pixel size, at which their tissues are at most ``side`` pixels long."""

    def __init__(
        self, fixed: RegistrationImage, moving: RegistrationImage, kind: ScorerKind, side: int, min_overlap: float
    ) -> None:
        mpp = common_mpp(fixed, moving, side)
        self._fixed, moving = coarsened(fixed, mpp), coarsened(moving, mpp)
        self._table = Turntable(moving)
        least = min_overlap * min(np.count_nonzero(self._fixed.mask), np.count_nonzero(moving.mask))
        transforms = Transforms(self._table.transform_shape(self._fixed.mask, least))
        self._scorer = kind(self._fixed, moving, transforms, least)
        self.apart = max(self._fixed.grid.shape) / 4

    def peaks(self, turns: Iterable[tuple[float, bool]]) -> list[Peak]:
        """Return the best shift at each angle, mirrored or not, where enough overlaps."""
        peaks = (self._table.best(self._scorer, angle, mirrored=mirrored) for angle, mirrored in turns)
        return [peak for peak in peaks if math.isfinite(peak.score)]

    def transform(self, peak: Peak) -> Affine:
        """Return a peak's transform, fixed µm to moving µm."""
        return self._table.transform(peak, self._fixed.grid)


def coarse_to_fine(
    fixed: RegistrationImage, moving: RegistrationImage, kind: ScorerKind, config: RegisterConfig
) -> Searched:
    """Search every angle on small images; look at the best ones at ``config.search_side``, and about the best of those.

    Angles come in steps of a full turn by ``config.angles``, at last of a degree or so.
    """
    coarse, fine = (
        Level(fixed, moving, kind, round(share * config.search_side), config.min_overlap) for share in (_COARSE, 1.0)
    )
    step = 360.0 / config.angles
    rough = coarse.peaks((step * index, mirrored) for mirrored in (False, True) for index in range(config.angles))
    kept = max(_KEPT, config.candidates)
    peaks = fine.peaks((peak.angle, peak.mirrored) for peak in _distinct(rough, kept, coarse.apart))
    best = _distinct(peaks, _TURNED, fine.apart)
    return Searched(
        fine, rough, peaks + fine.peaks((p.angle + turn, p.mirrored) for p in best for turn in _turns(step))
    )


def _turns(step: float) -> list[float]:
    """Return turns to either side of an angle, about a degree apart, up to half the way to the next one."""
    number = max(math.ceil((step / _FINE_DEG - 1) / 2 - 1e-9), 0)
    return [sign * index * step / (2 * number + 1) for sign in (-1, 1) for index in range(1, number + 1)]


def search(view: View, config: RegisterConfig) -> tuple[Candidate, ...]:
    """Return the best ``config.candidates`` distinct starts, best first.

    Raises
    ------
    RegistrationError
        If no rotation and shift overlaps enough.
    """
    kind = Correlation if view.metric == "ncc" else Information
    found = coarse_to_fine(view.fixed, view.moving, kind, config)
    if not found.fine:
        raise RegistrationError(
            f"the {view.name} images overlap by less than {config.min_overlap:.0%} at every rotation; "
            "check the tissue masks, or lower register.min_overlap"
        )
    return tuple(
        Candidate(
            found.level.transform(peak),
            view.name,
            peak.angle % 360.0,
            peak.mirrored,
            peak.score,
            _significance(peak, found.coarse, 360.0 / config.angles),
        )
        for peak in _distinct(found.fine, config.candidates, found.level.apart)
    )


def _degrees_apart(a: Peak, b: Peak) -> float:
    if a.mirrored != b.mirrored:
        return math.inf
    turn = abs(a.angle - b.angle) % 360.0
    return min(turn, 360.0 - turn)


def _distinct(peaks: Sequence[Peak], count: int, apart: float) -> list[Peak]:
    """Return the best peaks, without those on the slope of a better one: within 15 degrees and `apart` pixels."""
    chosen: list[Peak] = []
    for peak in sorted(peaks, key=lambda peak: -peak.score):
        near = (math.dist(peak.shift, p.shift) <= apart and _degrees_apart(peak, p) <= _SLOPE_DEG for p in chosen)
        if len(chosen) < count and not any(near):
            chosen.append(peak)
    return chosen


def _significance(peak: Peak, coarse: Sequence[Peak], step: float) -> float:
    """Return how far the nearest coarse peak lies above those that are more than two steps away."""
    nearest = min(coarse, key=lambda other: _degrees_apart(other, peak))
    others = [other.score for other in coarse if _degrees_apart(other, nearest) > 2 * step]
    if len(others) < 2:
        return 0.0
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.array(others) - middle)))
    return (nearest.score - middle) / spread if spread > 0 else 0.0
