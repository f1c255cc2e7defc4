"""The global start: every rotation and both mirrorings, every shift by FFT, at a coarse level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.scores import Correlation, Information, Transforms
from comir_batch.registration.turntable import Turntable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Affine
    from comir_batch.registration.images import RegistrationImage, View
    from comir_batch.registration.scores import Scorer
    from comir_batch.registration.turntable import Peak


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
        How far the score lies above those of the other angles, in robust standard deviations.
    """

    transform: Affine
    view: Literal["comir", "raw"]
    angle: float
    mirrored: bool
    score: float
    z: float


def search(view: View, config: RegisterConfig) -> tuple[Candidate, ...]:
    """Return the best ``config.candidates`` distinct starts, best first.

    Mutual information is searched at half of ``config.search_side``: it takes four times as many transforms.

    Raises
    ------
    RegistrationError
        If no rotation and shift overlaps enough.
    """
    side = config.search_side if view.metric == "ncc" else config.search_side // 2
    mpp = common_mpp(view.fixed, view.moving, side)
    fixed, moving = coarsened(view.fixed, mpp), coarsened(view.moving, mpp)
    turned = Turntable(moving)
    scorer = _scorer(view, fixed, moving, turned, config)
    angles = np.arange(config.angles) * 360.0 / config.angles
    peaks = [turned.best(scorer, angle, mirrored=mirrored) for mirrored in (False, True) for angle in angles]
    if not any(math.isfinite(peak.score) for peak in peaks):
        raise RegistrationError(
            f"the {view.name} images overlap by less than {config.min_overlap:.0%} at every rotation; "
            "check the tissue masks, or lower register.min_overlap"
        )
    chosen = _distinct(peaks, config, max(fixed.grid.shape) / 4)
    return tuple(
        Candidate(
            turned.transform(peak, fixed.grid),
            view.name,
            peak.angle,
            peak.mirrored,
            peak.score,
            _significance(peak, peaks, config),
        )
        for peak in chosen
    )


def _scorer(
    view: View, fixed: RegistrationImage, moving: RegistrationImage, turned: Turntable, config: RegisterConfig
) -> Scorer:
    least = config.min_overlap * min(np.count_nonzero(fixed.mask), np.count_nonzero(moving.mask))
    kind = Correlation if view.metric == "ncc" else Information
    return kind(fixed, moving, Transforms(turned.transform_shape(fixed.mask, least)), least)


def _steps_apart(a: Peak, b: Peak, config: RegisterConfig) -> float:
    if a.mirrored != b.mirrored:
        return math.inf
    turn = abs(a.angle - b.angle) % 360.0
    return min(turn, 360.0 - turn) * config.angles / 360.0


def _distinct(peaks: Sequence[Peak], config: RegisterConfig, apart: float) -> list[Peak]:
    """Return the best peaks, without those on the slope of a better one: within 15 degrees and ``apart`` pixels."""
    slope = 15.0 * config.angles / 360.0
    chosen: list[Peak] = []
    for peak in sorted((peak for peak in peaks if math.isfinite(peak.score)), key=lambda peak: -peak.score):
        near = (math.dist(peak.shift, p.shift) <= apart and _steps_apart(peak, p, config) <= slope for p in chosen)
        if len(chosen) < config.candidates and not any(near):
            chosen.append(peak)
    return chosen


def _significance(peak: Peak, peaks: Sequence[Peak], config: RegisterConfig) -> float:
    others = [p.score for p in peaks if math.isfinite(p.score) and _steps_apart(p, peak, config) > 2]
    if len(others) < 2:
        return 0.0
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.array(others) - middle)))
    return (peak.score - middle) / spread if spread > 0 else 0.0
