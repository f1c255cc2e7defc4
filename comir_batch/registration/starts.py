"""The starts of one pair: found by all views together, and compared by what all of them say."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.coarse import coarse_view
from comir_batch.registration.comparison import Comparison
from comir_batch.registration.features import feature_starts
from comir_batch.registration.fit import Fitted, unfitted
from comir_batch.registration.held_out import HeldOut, held_out_tiles
from comir_batch.registration.outline import rimmed
from comir_batch.registration.search import Candidate, search
from comir_batch.registration.settle import Settled, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import View


_BY_CHANCE = (
    3.9  # nats between two good fits of three parameters: half the 95th percentile of chi-squared (Wilks, 1938)
)
_MOST_LOST = 0.1  # of nats, by a fit that keeps them
_SAME = 0.1  # of the fixed image's longer side: nearer places are one
_SURER = 3.0  # standard deviations: of known fields 4.1 and more where raw images are right, at most 2.1 where not
_JUDGED = 4  # starts, the likeliest, that held-out tiles are asked about

_Near = tuple[Candidate | None, Settled]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A start and what the views say of it.

    Attributes
    ----------
    transform : Composite
        Fixed µm to moving µm.
    likelihood : dict
        Nats by which the images explain each other, by name of the view; NaN where too little overlaps. Not on held-out
        tiles.
    held_out : dict
        Significance on held-out tiles by name of the view; NaN where too little overlaps.
    candidate : Candidate or None
        What the search found; None where the user gave the start.
    """

    transform: Composite
    likelihood: dict[str, float]
    held_out: dict[str, float]
    candidate: Candidate | None = None

    @property
    def total(self) -> float:
        """Nats of all views together; -inf where none can tell."""
        return _total(self.likelihood)

    @property
    def mirrored(self) -> bool:
        """Whether it mirrors."""
        return bool(np.linalg.det(_linear(self.transform)) < 0)

    @property
    def angle(self) -> float:
        """Degrees, of the rotation after x is perhaps mirrored."""
        turn = _linear(self.transform) @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        return math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])) % 360


class Starts:
    """Finds the starts of one pair and compares them by every view.

    The likeliest one wins, on all tissue that fits see; held-out tiles have no say in that. They have one in which view
    is fitted and which fit stays (`final_view`, `full_fit`), so the significance of what was chosen of two is a little
    high.

    Parameters
    ----------
    views : sequence of View
        One or two ways of comparing the pair, on the same two grids.
    config : RegisterConfig
        Settings.
    outline : View or None
        What the outlines tell, on the same grids and tissue: the search heeds it and it has a say in what is likely,
        but nothing is fitted to it, and no verdict rests on it.

    Attributes
    ----------
    held_out : (Y, X) bool
        Pixels of the fixed grid that neither search nor fit sees.
    views : tuple of View
        Without the held-out pixels.
    fitted : tuple of View
        The same for full fits: where outlines count, raw images have a rim of glass.
    outline : View or None
        As given, without the held-out pixels.

    Raises
    ------
    RegistrationError
        If there is too little tissue to hold any of it out.
    """

    def __init__(self, views: Sequence[View], config: RegisterConfig, outline: View | None = None) -> None:
        self.held_out = held_out_tiles(_common_mask(views), config.held_out, config.seed)
        self.views = tuple(map(self._without_held_out, views))
        self.outline = None if outline is None else self._without_held_out(outline)
        self.fitted = self.views if outline is None else tuple(map(self._fitted, views))
        self._asked = self.views if self.outline is None else (*self.views, self.outline)
        self._judges: dict[str, HeldOut] = {view.name: HeldOut(view, self.held_out, config) for view in views}
        heard = (*self._asked, *_as_scanned(self.views))
        compared = [coarse_view(view, config.search_side) for view in heard]
        self._grid = compared[0].fixed.grid
        self._compared = {view.name: Comparison(view) for view in compared}
        self._config = config

    def found(self, initial: Composite | None = None) -> tuple[Start, ...]:
        """Return the likeliest of what is found, or of what the user gave, settled; distinct, likeliest first.

        The search's own scores are the highest of very many, and some are high by chance where little overlaps; how
        likely a place is by all that overlaps there, once it has settled, tells the right one from those.

        Raises
        ------
        RegistrationError
            If no rotation and shift overlaps enough, or no features agree.
        """
        places: list[tuple[Candidate | None, Composite]] = (
            [(place, Composite((place.transform,))) for place in self._places()]
            if initial is None
            else [(None, initial)]
        )
        with ThreadPoolExecutor(self._config.threads) as pool:
            near = sorted(pool.map(self._settled, places), key=lambda place: -place[1].nats)
        if not math.isfinite(near[0][1].nats):
            raise RegistrationError("too little of the tissue overlaps at any start")
        return tuple(self._judged(place.transform, candidate) for candidate, place in self._distinct(near)[:_JUDGED])

    def _fitted(self, view: View) -> View:
        return self._without_held_out(rimmed(view) if view.name == "raw" else view)

    def _without_held_out(self, view: View) -> View:
        return replace(view, fixed=view.fixed.masked(view.fixed.mask & ~self.held_out))

    def _distinct(self, near: Sequence[_Near]) -> list[_Near]:
        """Leave out places that have settled where a likelier one has."""
        corners, apart = self._grid.corners_um(), _SAME * max(self._grid.size_um)
        chosen: list[_Near] = []
        for candidate, place in near:
            laid = place.transform.map(corners)
            if all(np.abs(laid - other.transform.map(corners)).max() > apart for _, other in chosen):
                chosen.append((candidate, place))
        return chosen

    def _settled(self, place: tuple[Candidate | None, Composite]) -> _Near:
        candidate, start = place
        return candidate, settled(start, self._grid, self.nats, scaled=len(self._config.scales) > 1)

    def _places(self) -> list[Candidate]:
        """Return what features and the search find, as far as they are asked."""
        by = self._config.starts
        places = (
            [] if by == "search" else [place for view in self.views for place in feature_starts(view, self._config)]
        )
        try:
            if by != "features":
                places += self._searched()
        except RegistrationError:  # the features may know better
            if not places:
                raise
        if not places:
            raise RegistrationError("no features agree; set register.starts to search or both")
        return places

    def _searched(self) -> list[Candidate]:
        """Return what the search finds at each scale that may be; at some of them the tissue may not overlap."""
        places: list[Candidate] = []
        failed: RegistrationError | None = None
        for scale in self._config.scales:
            views = [replace(view, moving=view.moving.enlarged(1 / scale)) for view in self._asked]
            larger = Affine(scale * np.eye(2), np.zeros(2))
            try:
                found = search(views, self._config)
            except RegistrationError as error:
                failed = error
            else:
                places += [replace(place, transform=larger.after(place.transform)) for place in found]
        if failed and not places:
            raise failed
        return places

    def _judged(self, transform: Composite, candidate: Candidate | None) -> Start:
        return Start(transform, self._likelihood(transform), self.significances(transform), candidate)

    def nats(self, transform: Composite) -> float:
        """Return what all views together say of a transform; -inf where none can tell."""
        return _total(self._likelihood(transform))

    def keeps(self, start: Start, transform: Composite, view: View) -> bool:
        """Return whether a view finds a transform as likely as a start, but for chance."""
        before, after = start.likelihood[view.name], self._likelihood(transform)[view.name]
        lost = before - (after if math.isfinite(after) else 0.0)  # all, where nothing overlaps
        return not math.isfinite(before) or lost <= max(_BY_CHANCE, _MOST_LOST * before)

    def significances(self, transform: Composite) -> dict[str, float]:
        """Return a transform's significance on held-out tiles by name of the view; NaN where too little overlaps."""
        return {name: judge.significance(transform) for name, judge in self._judges.items()}

    def _likelihood(self, transform: Composite) -> dict[str, float]:
        return {name: compared.likelihood(transform) for name, compared in self._compared.items()}


def margin(starts: Sequence[Start]) -> float | None:
    """Return by how many nats the first start is likelier than the next one; than chance if there is none.

    None where there is nothing to compare it with: where the user gave it, or features that propose no other one.
    """
    best, *others = starts
    if best.candidate is None or (best.candidate.by == "features" and not others):
        return None
    return best.total - max(others[0].total if others else 0.0, 0.0)


def final_view(views: Sequence[View], best: Start, config: RegisterConfig) -> tuple[View, list[View]]:
    """Return the view for the full fit, and the others.

    The representations, which locate more finely; the raw images where representations are in doubt on the held-out
    tiles, and raw images surer by far.
    """
    view, *others = views
    if others and not _trusted(best, view, config) and _surer(best.held_out, others[0], best.held_out, view):
        return others[0], [view]
    return view, others


class Final(NamedTuple):
    """The full fit of a start: the view that it was made with, the other one if there is one, and the fit."""

    view: View
    others: list[View]
    fitted: Fitted
    set_aside: bool = False
    """Whether it stands in for the fit of the view that `final_view` chose, and tells more than that."""


def full_fit(
    starts: Starts, best: Start, views: Sequence[View], config: RegisterConfig, fit: Callable[[View], Fitted]
) -> Final:
    """Fit a start in full, in the view that is chosen, or in the other one where its fit tells more.

    A view that tells little of a place can draw a good start away: then its fit is astray, for it loses half of the
    significance that the start had on held-out tiles in that view, or in both together. Where it is, or the view was in
    doubt from the start, the other one is fitted, too. Its fit stays if it is surer, each by its own view (by far,
    unless the first one is astray), and the view itself finds it as likely as the start, or more significant. Else the
    start stays, where the first fit is astray, or neither as likely nor more significant.

    Mutual information is surest of places a few pixels off where modalities show other edges, so raw images have to be
    surer by far, and what they think of the representations' fit does not count.
    """
    view, others = final_view(views, best, config)
    fitted = fit(view)
    if not others:
        return Final(view, others, fitted)
    (other,) = others
    after = starts.significances(fitted.transform)
    astray = _astray(best.held_out, after, view)
    if astray or not _trusted(best, view, config):
        instead = fit(other)
        told = starts.significances(instead.transform)
        surer = _surer(told, other, after, view, by=0.0 if astray else _SURER)
        if surer and _believed(starts, best, instead, told, other):
            return Final(other, [view], instead, set_aside=True)
    if astray or not _believed(starts, best, fitted, after, view):
        worse = "less significant on held-out tiles than the start" if astray else "less likely than the start"
        fitted = unfitted(best.transform, fitted, worse)
    return Final(view, others, fitted)


def _trusted(best: Start, view: View, config: RegisterConfig) -> bool:
    """Return whether a view is significant beyond doubt at the start."""
    return best.held_out.get(view.name, math.nan) >= config.trust_z


def _surer(
    told: Mapping[str, float], view: View, other_told: Mapping[str, float], other: View, by: float = _SURER
) -> bool:
    """Return whether a view tells more by so much on held-out tiles than another one, each of its own transform."""
    z, least = (each if math.isfinite(each) else -math.inf for each in (told[view.name], other_told[other.name]))
    return z > max(least, 0.0) + by


def _believed(starts: Starts, best: Start, fitted: Fitted, told: Mapping[str, float], view: View) -> bool:
    """Return whether a view finds a fit as likely as the start, or more significant on held-out tiles."""
    return starts.keeps(best, fitted.transform, view) or told[view.name] > best.held_out[view.name]


def _astray(before: Mapping[str, float], after: Mapping[str, float], view: View) -> bool:
    """Return whether a view, or all of them together, lose half of what they told on held-out tiles.

    All, where too little of the tiles overlaps after the fit to tell anything.
    """
    left = {name: after[name] if math.isfinite(after[name]) else 0.0 for name in before}
    known = [name for name, told in before.items() if math.isfinite(told)]
    told, kept = (sum(each[name] for name in known) for each in (before, left))
    return left[view.name] < before[view.name] / 2 or kept < told / 2


def _total(likelihood: Mapping[str, float]) -> float:
    known = [nats for nats in likelihood.values() if math.isfinite(nats)]
    return sum(known) if known else -math.inf


def _as_scanned(views: Sequence[View]) -> list[View]:
    """Return raw images as scanned, where there are no representations.

    What changes slowly tells little where an organ or the light does so. In small fields of cells it tells at times
    more than all that is finer. So places are found without it, and it has a say in which of them is likely.
    """
    (first, *others) = views
    return [] if others or first.fixed.scanned is None else [replace(first.as_scanned(), name="scanned")]


def _common_mask(views: Sequence[View]) -> NDArray[np.bool_]:
    if len({view.fixed.grid for view in views}) != 1 or len({view.moving.grid for view in views}) != 1:
        raise ValueError(f"all of the {len(views)} views must lie on the same two grids, and there must be one")
    common: NDArray[np.bool_] = np.logical_and.reduce([view.fixed.mask for view in views])
    if not common.any():
        raise RegistrationError("the fixed masks of the views have no pixel in common; check the tissue mask")
    return common


def _linear(transform: Composite) -> NDArray[np.float64]:
    matrix = np.eye(2)
    for part in transform.parts:
        matrix = part.matrix @ matrix if isinstance(part, Affine) else matrix
    return matrix
