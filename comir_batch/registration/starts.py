"""The starts of one pair: searched in each view, refined by elastix, and judged on tiles that no fit sees."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.comparison import Comparison
from comir_batch.registration.fit import Fitter
from comir_batch.registration.held_out import HeldOut, held_out_tiles
from comir_batch.registration.search import Candidate, search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.fit import Fitted
    from comir_batch.registration.images import View


_RIGID_PARAMETERS = 3
_MOST_LOST = 0.1  # of the other view's nats, by a fit that both views stand for


@dataclass(frozen=True, slots=True, eq=False)
class CandidateReport:
    """What became of one start.

    Attributes
    ----------
    view : str
        The view that refined it.
    angle : float
        Degrees, after the refinement.
    mirrored : bool
        Whether it mirrors.
    score, z : float
        Of the search; NaN for a start that the user gave.
    likelihood : dict
        Nats by which the images explain each other, by name of the view; not on held-out tiles.
    held_out : dict
        Significance on held-out tiles by name of the view; NaN, as likelihoods, where too little overlaps.
    seconds : float
        Of the refinement and the scoring.
    error : str
        Why elastix failed; empty if it did not.
    """

    view: str
    angle: float
    mirrored: bool
    score: float
    z: float
    likelihood: dict[str, float]
    held_out: dict[str, float]
    seconds: float
    error: str = ""

    @property
    def total(self) -> float:
        """Nats of all views together; -inf if there are none."""
        return _total(self.likelihood)


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A start and, once refined and judged, what became of it.

    Attributes
    ----------
    view : View
        Refines it; without the held-out tiles.
    transform : Composite
        Fixed µm to moving µm.
    candidate : Candidate or None
        What the search found; None where the user gave the start.
    report : CandidateReport or None
        None until it is judged.
    """

    view: View
    transform: Composite
    candidate: Candidate | None = None
    report: CandidateReport | None = None

    @property
    def total(self) -> float:
        """How likely it is, see `CandidateReport.total`."""
        return self.report.total if self.report else -math.inf


class Starts:
    """Finds the starts of one pair, refines them rigidly, and compares them by every view.

    The likeliest one wins, on all tissue that fits see; held-out tiles have no say, so that a verdict may rest on them.

    Parameters
    ----------
    views : sequence of View
        One or two ways of comparing the pair, on the same two grids.
    config : RegisterConfig
        Settings.
    folder : Path
        Takes elastix' files.

    Attributes
    ----------
    held_out : (Y, X) bool
        Pixels of the fixed grid that neither search nor fit sees.
    views : tuple of View
        Without the held-out pixels.

    Raises
    ------
    RegistrationError
        If there is too little tissue to hold any of it out.
    """

    def __init__(self, views: Sequence[View], config: RegisterConfig, folder: Path) -> None:
        self.held_out = held_out_tiles(_common_mask(views), config.held_out, config.seed)
        self.views = tuple(replace(view, fixed=view.fixed.masked(view.fixed.mask & ~self.held_out)) for view in views)
        self._judges: dict[str, HeldOut] = {view.name: HeldOut(view, self.held_out, config) for view in views}
        self._compared = {view.name: Comparison(_searched(view, config)) for view in self.views}
        self._config, self._fitter, self._numbers = config, Fitter(config, folder), count()

    def searched(self) -> list[Start]:
        """Return the likeliest ``config.candidates`` of the places that the search finds, once for each view.

        The search's own scores are the highest of very many, and some are high by chance where little overlaps; how
        likely a place is by all that overlaps there tells the right one from those.

        Raises
        ------
        RegistrationError
            If no rotation and shift overlaps enough.
        """
        found = [(candidate, Composite((candidate.transform,))) for candidate in search(self.views, self._config)]
        found.sort(key=lambda place: -_total(self._likelihood(place[1])))
        return [
            Start(view, transform, candidate)
            for candidate, transform in found[: self._config.candidates]
            for view in self.views
        ]

    def refined(self, start: Start) -> Start:
        """Return a start after a quick rigid fit on its own view, with what all views say of it."""
        began, error = time.monotonic(), ""
        transform = start.transform
        nats, held_out = (dict.fromkeys(self._judges, math.nan) for _ in range(2))
        try:
            transform = self._fitter.quick(start.view, start.transform, next(self._numbers))
            nats = self._likelihood(transform)
            held_out = {name: judge.significance(transform) for name, judge in self._judges.items()}
        except RegistrationError as failure:
            error = str(failure)
        report = _report(start, transform, (nats, held_out), time.monotonic() - began, error)
        return replace(start, transform=transform, report=report)

    def _likelihood(self, transform: Composite) -> dict[str, float]:
        return {name: compared.likelihood(transform) for name, compared in self._compared.items()}

    def lost(self, start: Start, transform: Composite, view: View) -> float:
        """Return by which share of its nats at a start a view speaks less for a transform; 0 where that means nothing.

        Nothing is less than three nats, as the three parameters of a rigid transform are by chance (Akaike, IEEE TAC
        1974).
        """
        before = start.report.likelihood.get(view.name, math.nan) if start.report else math.nan
        after = self._compared[view.name].likelihood(transform)
        less = before - (after if math.isfinite(after) else 0.0)  # all of them where the tissues no longer overlap
        return less / before if less > _RIGID_PARAMETERS else 0.0


def likeliest(views: Sequence[View], refined: Sequence[Start], config: RegisterConfig) -> Start:
    """Return the likeliest start; of those of one place that are about as likely, that of the view for the full fit.

    Less than three nats apart is as likely, as in `Starts.lost`.
    """
    best = max(refined, key=lambda start: start.total)
    view, _ = final_view(views, best, config)
    return next(
        (
            start
            for start in refined
            if start.candidate is best.candidate
            and start.view.name == view.name
            and best.total - start.total <= _RIGID_PARAMETERS
        ),
        best,
    )


def final_view(views: Sequence[View], best: Start, config: RegisterConfig) -> tuple[View, list[View]]:
    """Return the view for the full fit, and the others.

    The representations where they are significant beyond doubt, for they locate more finely; else the view that the
    held-out tiles speak for most. Small images have too few tiles for any to be beyond doubt.
    """
    scores = best.report.held_out if best.report else {}

    def preference(view: View) -> tuple[bool, float]:
        z = scores.get(view.name, math.nan)
        return view.name == "comir" and z >= config.trust_z, z if math.isfinite(z) else -math.inf

    chosen = max(views, key=preference)
    return chosen, [view for view in views if view is not chosen]


class Final(NamedTuple):
    """The full fit of a start: the view that it was made with, the other one if there is one, and the fit."""

    view: View
    others: list[View]
    fitted: Fitted
    set_aside: bool = False
    """Whether it stands in for the fit that `final_view` chose, which the other view spoke against."""


def full_fit(
    starts: Starts, best: Start, views: Sequence[View], config: RegisterConfig, fit: Callable[[View], Fitted]
) -> Final:
    """Fit a start in full, in the view that is chosen, or in the other one where that speaks against it.

    A view that tells little of a place can draw a good start away. What it finds then makes the other view less likely
    than the start did; so the other one is fitted, too, and of the two that stays which takes less from the other view.
    """
    view, others = final_view(views, best, config)
    fitted = fit(view)
    if not others or (lost := starts.lost(best, fitted.transform, others[0])) <= _MOST_LOST:
        return Final(view, others, fitted)
    instead = fit(others[0])
    if starts.lost(best, instead.transform, view) >= lost:
        return Final(view, others, fitted)
    return Final(others[0], [view], instead, set_aside=True)


def _total(likelihood: Mapping[str, float]) -> float:
    known = [nats for nats in likelihood.values() if math.isfinite(nats)]
    return sum(known) if known else -math.inf


def _searched(view: View, config: RegisterConfig) -> View:
    mpp = common_mpp(view.fixed, view.moving, config.search_side)
    return replace(view, fixed=coarsened(view.fixed, mpp), moving=coarsened(view.moving, mpp))


def _common_mask(views: Sequence[View]) -> NDArray[np.bool_]:
    if len({view.fixed.grid for view in views}) != 1 or len({view.moving.grid for view in views}) != 1:
        raise ValueError(f"all of the {len(views)} views must lie on the same two grids, and there must be one")
    common: NDArray[np.bool_] = np.logical_and.reduce([view.fixed.mask for view in views])
    if not common.any():
        raise RegistrationError("the fixed masks of the views have no pixel in common; check the tissue mask")
    return common


def _report(
    start: Start,
    transform: Composite,
    judged: tuple[dict[str, float], dict[str, float]],
    seconds: float,
    error: str,
) -> CandidateReport:
    matrix = _linear(transform)
    mirrored = bool(np.linalg.det(matrix) < 0)
    turn = matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    angle = math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])) % 360
    found = start.candidate
    score, z = (found.score, found.z) if found else (math.nan, math.nan)
    return CandidateReport(start.view.name, angle, mirrored, score, z, *judged, seconds, error)


def _linear(transform: Composite) -> NDArray[np.float64]:
    matrix = np.eye(2)
    for part in transform.parts:
        matrix = part.matrix @ matrix if isinstance(part, Affine) else matrix
    return matrix
