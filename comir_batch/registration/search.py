"""The global start: every rotation and both mirrorings, every shift by FFT; coarse first, finer about the best."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.registration.chance import Chance, Tally, bin_edges
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
_Surfaces = tuple[list["NDArray[np.float32]"], "NDArray[np.float32]"]  # scores of every shift, and overlaps

_COARSE = 3 / 8  # of the search's side
_TURNED = 4  # peaks that are looked at more finely and are turned, too
_COARSE_GAUGED, _FINE_GAUGED = 24, 6  # angles that tell what chance gives
_SLOPE_DEG = 15.0  # about a peak
_FINE_DEG = 1.0
_REACH_PX = 4  # what a coarse pixel is at the fine level, and a half more


class Slope(NamedTuple):
    """How far apart two shifts may be, in sides of the image, for the worse peak to lie on the slope of the better one.

    Attributes
    ----------
    shift : float
        At one angle.
    turn : float
        More for each degree that the angles are apart.
    """

    shift: float
    turn: float


_WIDE = Slope(1 / 4, 0.0)
_NARROW = Slope(1 / 48, 1 / 200)  # what agrees a fourth of the side beside the middle moves by a 230th with each degree
_SLOPES = (_WIDE, _NARROW)


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

    Scores are nats, by how far the scorers' scores lie above those of shifts at `gauged` angles, without those nearby,
    so that those of several pairs can be added.
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
        self.side = max(self._fixed.grid.shape)
        self._edges, self._most = bin_edges(least, min(sizes)), min(sizes)
        gauges = [(360.0 * k / gauged, bool(k % 2)) for k in range(gauged)]
        with ThreadPoolExecutor(self._threads) as pool:
            self._gauged = dict(zip(gauges, pool.map(self._surfaces, gauges), strict=True))
            self._tallies = dict(zip(gauges, pool.map(self._tallied, gauges), strict=True))

    def peaks(self, turns: Iterable[_Turn], near: Iterable[tuple[_Turn, Affine]] = ()) -> list[list[Peak]]:
        """Return the best shift at each angle, mirrored or not, where enough overlaps.

        The first list is by all pairs of images together; where there are several, one by each of them alone follows.

        Parameters
        ----------
        turns : iterable of (float, bool)
            Degrees, and whether x is mirrored before.
        near : iterable of ((float, bool), Affine)
            Of some of the turns, places of a coarser level: the best shift near each is returned, too.
        """
        shifts: dict[_Turn, set[tuple[int, int]]] = {turn: set() for turn in turns}
        for turn, place in near:
            shifts[turn].add(self._tables[0].shift(place, self._fixed.grid))
        with ThreadPoolExecutor(self._threads) as pool:
            best = list(pool.map(self._best, shifts, shifts.values()))
        several = len(self._tables) > 1
        ways = range(several + len(self._tables))
        return [[peak for peaks in best for peak in peaks[way] if math.isfinite(peak.score)] for way in ways]

    def transform(self, peak: Peak) -> Affine:
        """Return a peak's transform, fixed µm to moving µm."""
        return self._tables[0].transform(peak, self._fixed.grid)

    def _best(self, turn: _Turn, near: Iterable[tuple[int, int]]) -> list[list[Peak]]:
        """Return the best shift at an angle, and the best near some, by the ways of `peaks`."""
        (angle, mirrored), alone, table = turn, self._nats(turn), self._tables[0]
        ways = [np.sum(alone, axis=0), *alone] if len(alone) > 1 else alone
        return [
            [
                table.peak(nats, angle, mirrored=mirrored),
                *(table.peak_near(nats, angle, shift, _REACH_PX, mirrored=mirrored) for shift in near),
            ]
            for nats in ways
        ]

    def _nats(self, turn: _Turn) -> list[NDArray[np.float32]]:
        surfaces, overlap = self._gauged.get(turn) or self._surfaces(turn)
        each = zip(self._scorers, self._chances(turn), surfaces, strict=True)
        return [scorer.likelihood(chance.standard(scores, overlap)) for scorer, chance, scores in each]

    def _chances(self, turn: _Turn) -> list[Chance]:
        """Return what chance gives each scorer, as other angles tell.

        At its own angle the right place is among the few shifts where nearly all overlaps; they would tell that scores
        as high as its own are usual there.
        """
        others = [tallies for at, tallies in self._tallies.items() if _far(at, turn)]
        added = len(self._tables) > 1
        return [Chance.of(tallies, self._edges, self._most, added=added) for tallies in zip(*others, strict=True)]

    def _tallied(self, turn: _Turn) -> list[Tally]:
        surfaces, overlap = self._gauged[turn]
        return [Tally.of(scores, overlap, self._edges) for scores in surfaces]

    def _surfaces(self, turn: _Turn) -> _Surfaces:
        """Return the scores of every shift at an angle by each scorer, and how many pixels overlap."""
        angle, mirrored = turn
        turned = [table.turned(angle, mirrored=mirrored) for table in self._tables]
        overlap = self._scorers[0].overlap(turned[0][1])
        scores = [scorer.scores(*image, overlap) for scorer, image in zip(self._scorers, turned, strict=True)]
        return scores, overlap.pixels


def coarse_to_fine(compared: Sequence[Compared], config: RegisterConfig) -> Searched:
    """Search every angle on small images; look at the best ones at ``config.search_side``, and about the best of those.

    Angles come in steps of a full turn by ``config.angles``, at last of a degree or so.
    """
    coarse = Level(compared, round(_COARSE * config.search_side), config, _COARSE_GAUGED)
    fine = Level(compared, config.search_side, config, _FINE_GAUGED)
    step = 360.0 / config.angles
    rough = coarse.peaks((step * index, mirrored) for mirrored in (False, True) for index in range(config.angles))
    kept = [peak for slope in _SLOPES for _, peak in _kept(rough, config.candidates, coarse.side, slope)]
    turns = [(peak.angle, peak.mirrored) for peak in kept]
    peaks = fine.peaks(turns, zip(turns, map(coarse.transform, kept), strict=True))
    best = _distinct(peaks[0], _TURNED, fine.side, _WIDE)
    about = fine.peaks((p.angle + turn, p.mirrored) for p in best for turn in _turns(step))
    return Searched(fine, rough, [at + beside for at, beside in zip(peaks, about, strict=True)])


def _kept(ways: Sequence[Sequence[Peak]], candidates: int, side: int, slope: Slope) -> Iterator[tuple[int, Peak]]:
    """Yield distinct peaks with their way, best first: by all views together, then half as many by each of them."""
    for way, peaks in enumerate(ways):
        for peak in _distinct(peaks, -(-candidates // 2) if way else candidates, side, slope):
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
    for way, peak in _kept(found.fine, config.candidates, found.level.side, _NARROW):
        if not any(_same(peak, other, found.level.side, _NARROW) for _, other in places):
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


def _far(a: _Turn, b: _Turn) -> bool:
    """Return whether what lies at one angle tells nothing of what lies at another."""
    (angle, mirrored), (other, other_mirrored) = a, b
    return mirrored != other_mirrored or _between(angle, other) > _SLOPE_DEG


def _degrees_apart(a: Peak, b: Peak) -> float:
    return _between(a.angle, b.angle) if a.mirrored == b.mirrored else math.inf


def _between(angle: float, other: float) -> float:
    turn = abs(angle - other) % 360.0
    return min(turn, 360.0 - turn)


def _distinct(peaks: Sequence[Peak], count: int, side: int, slope: Slope) -> list[Peak]:
    """Return the best peaks, without those on the slope of a better one."""
    chosen: list[Peak] = []
    for peak in sorted(peaks, key=lambda peak: -peak.score):
        if len(chosen) < count and not any(_same(peak, other, side, slope) for other in chosen):
            chosen.append(peak)
    return chosen


def _same(a: Peak, b: Peak, side: int, slope: Slope) -> bool:
    """Return whether one peak lies on the slope of another."""
    turn = _degrees_apart(a, b)
    return turn <= _SLOPE_DEG and math.dist(a.shift, b.shift) <= side * (slope.shift + turn * slope.turn)


def _significance(peak: Peak, coarse: Sequence[Peak], step: float) -> float:
    """Return how far the nearest coarse peak lies above those that are more than two steps away."""
    nearest = min(coarse, key=lambda other: _degrees_apart(other, peak))
    others = [other.score for other in coarse if _degrees_apart(other, nearest) > 2 * step]
    if len(others) < 2:
        return 0.0
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.array(others) - middle)))
    return (nearest.score - middle) / spread if spread > 0 else 0.0
