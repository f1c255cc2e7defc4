"""The global start: every rotation and both mirrorings, every shift by FFT; coarse first, finer about the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.registration.chance import Chance
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.images import RegistrationImage
from comir_batch.registration.scores import Correlation, Information, Scorer, Transforms
from comir_batch.registration.turntable import Turntable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Affine
    from comir_batch.registration.images import View
    from comir_batch.registration.turntable import Peak

ScorerKind = Callable[[RegistrationImage, RegistrationImage, Transforms, float], Scorer]
"""Makes a scorer of a fixed and a moving image, the FFTs' size and the least overlap in pixels."""

_Turn = tuple[float, bool]  # degrees, and whether x is mirrored before

_COARSE = 3 / 8  # of the search's side
_TURNED = 4  # peaks that are looked at more finely and are turned, too
_COARSE_GAUGED, _FINE_GAUGED = 24, 6  # angles that tell what chance gives
_SLOPE_DEG = 15.0  # about a peak: what lies as near is the same peak, if its shift is as near as a quarter of the image
_FINE_DEG = 1.0


class Compared(NamedTuple):
    """Two images and what makes a scorer of them; several such lie on the same two grids and have the same masks."""

    fixed: RegistrationImage
    moving: RegistrationImage
    kind: ScorerKind


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A place where a fit may start.

    Attributes
    ----------
    transform : Affine
        Rotation, perhaps a mirroring, and shift: fixed µm to moving µm.
    angle : float
        Degrees.
    mirrored : bool
        Whether x is mirrored before the rotation.
    score : float
        Nats by which it is likelier than chance.
    z : float
        How far the best score at the nearest coarse angle lies above those of other angles, in robust standard
        deviations.
    by : {"search", "features"}
        What found it.
    """

    transform: Affine
    angle: float
    mirrored: bool
    score: float
    z: float
    by: Literal["search", "features"] = "search"


class Searched(NamedTuple):
    """What a search found.

    Attributes
    ----------
    level : Level
        The fine one.
    coarse : list of list of Peak
        The best shift at every angle, as `Level.peaks` returns them.
    fine : list of list of Peak
        Those about the best of them, at the fine level.
    """

    level: Level
    coarse: list[list[Peak]]
    fine: list[list[Peak]]


class Level:
    """Pairs of images at one pixel size, at which their tissues are at most ``side`` pixels long.

    Scores are nats, by how far the scorers' scores lie above those of shifts at `gauged` angles, so that those of
    several pairs can be added.
    """

    def __init__(self, compared: Sequence[Compared], side: int, config: RegisterConfig, gauged: int) -> None:
        self._threads = config.threads
        mpp = common_mpp(compared[0].fixed, compared[0].moving, side)
        images = [(coarsened(each.fixed, mpp), coarsened(each.moving, mpp)) for each in compared]
        self._fixed, moving = images[0]
        self._tables = [Turntable(moving) for _, moving in images]
        sizes = [int(np.count_nonzero(image.mask)) for image in (self._fixed, moving)]
        least = config.min_overlap * min(sizes)
        self._transforms = Transforms(self._tables[0].transform_shape(self._fixed.mask, least))
        self._scorers = [each.kind(*pair, self._transforms, least) for each, pair in zip(compared, images, strict=True)]
        (self._inside,) = self._transforms.spectra([self._fixed.mask.astype(np.float32)])
        self.apart = max(self._fixed.grid.shape) / 4
        with ThreadPoolExecutor(self._threads) as pool:
            surfaces = list(pool.map(self._surfaces, [(360.0 * k / gauged, bool(k % 2)) for k in range(gauged)]))
        self._chances = [
            Chance.of(((scores[k], overlap) for scores, overlap in surfaces), least, min(sizes))
            for k in range(len(compared))
        ]

    def peaks(self, turns: Iterable[_Turn]) -> list[list[Peak]]:
        """Return the best shift at each angle, mirrored or not, where enough overlaps.

        The first list is by all pairs of images together; where there are several, one by each of them alone follows.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            best = list(pool.map(self._best, turns))
        several = len(self._tables) > 1
        ways = range(several + len(self._tables))
        return [[peaks[way] for peaks in best if math.isfinite(peaks[way].score)] for way in ways]

    def transform(self, peak: Peak) -> Affine:
        """Return a peak's transform, fixed µm to moving µm."""
        return self._tables[0].transform(peak, self._fixed.grid)

    def _best(self, turn: _Turn) -> list[Peak]:
        """Return the best shift at an angle, by the ways of `peaks`."""
        (angle, mirrored), alone = turn, self._nats(turn)
        ways = [np.sum(alone, axis=0), *alone] if len(alone) > 1 else alone
        return [self._tables[0].peak(nats, angle, mirrored=mirrored) for nats in ways]

    def _nats(self, turn: _Turn) -> list[NDArray[np.float32]]:
        surfaces, overlap = self._surfaces(turn)
        each = zip(self._scorers, self._chances, surfaces, strict=True)
        return [scorer.likelihood(chance.standard(scores, overlap)) for scorer, chance, scores in each]

    def _surfaces(self, turn: _Turn) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the scores of every shift at an angle by each scorer, and how many pixels overlap."""
        angle, mirrored = turn
        turned = [table.turned(angle, mirrored=mirrored) for table in self._tables]
        scores = [scorer.scores(*image) for scorer, image in zip(self._scorers, turned, strict=True)]
        (inside,) = self._transforms.spectra([turned[0][1].astype(np.float32)])
        return scores, self._transforms.correlated(self._inside, inside)


def coarse_to_fine(compared: Sequence[Compared], config: RegisterConfig) -> Searched:
    """Search every angle on small images; look at the best ones at ``config.search_side``, and about the best of those.

    Angles come in steps of a full turn by ``config.angles``, at last of a degree or so.
    """
    coarse = Level(compared, round(_COARSE * config.search_side), config, _COARSE_GAUGED)
    fine = Level(compared, config.search_side, config, _FINE_GAUGED)
    step = 360.0 / config.angles
    rough = coarse.peaks((step * index, mirrored) for mirrored in (False, True) for index in range(config.angles))
    kept = ((peak.angle, peak.mirrored) for _, peak in _kept(rough, config.candidates, coarse.apart))
    peaks = fine.peaks(dict.fromkeys(kept))
    best = _distinct(peaks[0], _TURNED, fine.apart)
    about = fine.peaks((p.angle + turn, p.mirrored) for p in best for turn in _turns(step))
    return Searched(fine, rough, [at + beside for at, beside in zip(peaks, about, strict=True)])


def _kept(ways: Sequence[Sequence[Peak]], candidates: int, apart: float) -> Iterator[tuple[int, Peak]]:
    """Yield distinct peaks with their way, best first: by all views together, then half as many by each of them."""
    for way, peaks in enumerate(ways):
        for peak in _distinct(peaks, -(-candidates // 2) if way else candidates, apart):
            yield way, peak


def _turns(step: float) -> list[float]:
    """Return turns to either side of an angle, about a degree apart, up to half the way to the next one."""
    number = max(math.ceil((step / _FINE_DEG - 1) / 2 - 1e-9), 0)
    return [sign * index * step / (2 * number + 1) for sign in (-1, 1) for index in range(1, number + 1)]


def search(views: Sequence[View], config: RegisterConfig) -> tuple[Candidate, ...]:
    """Return distinct places: the best by all views together, best first, then the best by each of them.

    What views tell is added, for none has to find alone what all of them agree on; but where one tells nothing, the
    others had better not listen to it. The last ones are left out where they are among the first.

    Raises
    ------
    RegistrationError
        If no rotation and shift overlaps enough.
    """
    found = coarse_to_fine(_compared(views), config)
    if not found.fine[0]:
        names = " and ".join(view.name for view in views)
        raise RegistrationError(
            f"the {names} images overlap by less than {config.min_overlap:.0%} at every rotation; "
            "check the tissue masks, or lower register.min_overlap"
        )
    places: list[tuple[int, Peak]] = []
    for way, peak in _kept(found.fine, config.candidates, found.level.apart):
        if not any(_same(peak, other, found.level.apart) for _, other in places):
            places.append((way, peak))
    return tuple(
        Candidate(
            found.level.transform(peak),
            peak.angle % 360.0,
            peak.mirrored,
            peak.score,
            _significance(peak, found.coarse[way], 360.0 / config.angles),
        )
        for way, peak in places
    )


def _compared(views: Sequence[View]) -> list[Compared]:
    """Return the views with what all of them see."""
    fixed, moving = (
        np.logical_and.reduce([image.mask for image in images])
        for images in zip(*((view.fixed, view.moving) for view in views), strict=True)
    )
    if not (fixed.any() and moving.any()):
        raise RegistrationError("the masks of the views have no pixel in common; check the tissue masks")
    kinds: dict[str, ScorerKind] = {"ncc": Correlation, "mi": Information}
    return [Compared(view.fixed.masked(fixed), view.moving.masked(moving), kinds[view.metric]) for view in views]


def _degrees_apart(a: Peak, b: Peak) -> float:
    if a.mirrored != b.mirrored:
        return math.inf
    turn = abs(a.angle - b.angle) % 360.0
    return min(turn, 360.0 - turn)


def _distinct(peaks: Sequence[Peak], count: int, apart: float) -> list[Peak]:
    """Return the best peaks, without those on the slope of a better one: within 15 degrees and `apart` pixels."""
    chosen: list[Peak] = []
    for peak in sorted(peaks, key=lambda peak: -peak.score):
        if len(chosen) < count and not any(_same(peak, other, apart) for other in chosen):
            chosen.append(peak)
    return chosen


def _same(a: Peak, b: Peak, apart: float) -> bool:
    """Return whether one peak lies on the slope of another."""
    return math.dist(a.shift, b.shift) <= apart and _degrees_apart(a, b) <= _SLOPE_DEG


def _significance(peak: Peak, coarse: Sequence[Peak], step: float) -> float:
    """Return how far the nearest coarse peak lies above those that are more than two steps away."""
    nearest = min(coarse, key=lambda other: _degrees_apart(other, peak))
    others = [other.score for other in coarse if _degrees_apart(other, nearest) > 2 * step]
    if len(others) < 2:
        return 0.0
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.array(others) - middle)))
    return (nearest.score - middle) / spread if spread > 0 else 0.0
