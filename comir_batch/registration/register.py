"""Registration of one pair: starts from every view, the best of them on held-out tiles, and its full fit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.fit import Fitter
from comir_batch.registration.held_out import HeldOut, held_out_tiles
from comir_batch.registration.search import Candidate, search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import View


@dataclass(frozen=True, slots=True, eq=False)
class CandidateReport:
    """What became of one start.

    Attributes
    ----------
    view : str
        The view that found and refined it.
    angle : float
        Degrees, after the refinement.
    mirrored : bool
        Whether it mirrors.
    score, z : float
        Of the search; NaN for a start that the user gave.
    held_out : dict
        Significance on held-out tiles by name of the view; NaN where too little overlaps.
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
    held_out: dict[str, float]
    seconds: float
    error: str = ""

    @property
    def total(self) -> float:
        """Significances of all views together (Stouffer's sum); -inf if there is none."""
        known = [z for z in self.held_out.values() if math.isfinite(z)]
        return sum(known) / math.sqrt(len(self.held_out)) if known else -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """What registration found.

    Attributes
    ----------
    transform : Composite
        Fixed µm to moving µm.
    winner : Candidate or None
        The search's start that won; None where the user gave the start.
    candidates : tuple of CandidateReport
        Every start, best first.
    view : str
        The view that the full fit used.
    held_out : (Y, X) bool
        Pixels of the fixed grid that neither search nor fit saw.
    other : Composite or None
        What the other view finds from the same start, rigid and affine; None without another view, or if it failed.
    other_error : str
        Why it failed.
    seconds : dict
        Wall time of each step.
    """

    transform: Composite
    winner: Candidate | None
    candidates: tuple[CandidateReport, ...]
    view: str
    held_out: NDArray[np.bool_]
    other: Composite | None = None
    other_error: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """A start and, once refined and scored, what became of it."""

    view: View
    transform: Composite
    candidate: Candidate | None = None
    report: CandidateReport | None = None

    @property
    def total(self) -> float:
        return self.report.total if self.report else -math.inf


def register(
    views: Sequence[View], config: RegisterConfig, *, deformable: bool, initial: Composite | None, folder: Path
) -> Registration:
    """Register a pair.

    Every view proposes starts by a search over all rotations and mirrorings; elastix refines each rigidly, and the
    significance of all views on held-out tiles chooses the winner. The full fit is rigid, affine and, if wanted,
    B-spline, on the representations where they are significant, else on the raw images.

    Parameters
    ----------
    views : sequence of View
        One or two ways of comparing the pair, on the same two grids.
    config : RegisterConfig
        Settings.
    deformable : bool
        Whether a B-spline follows the affine transform.
    initial : Composite or None
        Fixed µm to moving µm: the one start, instead of the search.
    folder : Path
        Takes elastix' files of the full fit; those of each start and of the other view go to folders in it.

    Raises
    ------
    RegistrationError
        If no start could be found or refined, or elastix failed in the full fit.
    """
    clock = _Clock()
    tiles = held_out_tiles(_common_mask(views), config.held_out, config.seed)
    seen = [replace(view, fixed=view.fixed.masked(view.fixed.mask & ~tiles)) for view in views]
    starts = _starts(seen, config, initial)
    clock.lap("search")
    judges: dict[str, HeldOut] = {view.name: HeldOut(view, tiles, config) for view in views}
    fitter = Fitter(config, folder)
    refined = sorted((_refined(s, n, judges, fitter) for n, s in enumerate(starts)), key=lambda s: -s.total)
    clock.lap("starts")
    reports = tuple(start.report for start in refined if start.report)
    if not math.isfinite(refined[0].total):
        raise RegistrationError(_nothing_found(reports))
    best = refined[0]
    view, others = _final_view(seen, best, config)
    transform = fitter.full(view, best.transform, folder, deformable=deformable)
    clock.lap("fit")
    other, other_error = fitter.other(others, best.transform, folder / "other")
    clock.lap("other")
    return Registration(transform, best.candidate, reports, view.name, tiles, other, other_error, clock.seconds)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = now - self._last, now


def _common_mask(views: Sequence[View]) -> NDArray[np.bool_]:
    if len({view.fixed.grid for view in views}) != 1 or len({view.moving.grid for view in views}) != 1:
        raise ValueError(f"all of the {len(views)} views must lie on the same two grids, and there must be one")
    common: NDArray[np.bool_] = np.logical_and.reduce([view.fixed.mask for view in views])
    if not common.any():
        raise RegistrationError("the fixed masks of the views have no pixel in common; check the tissue mask")
    return common


def _starts(views: Sequence[View], config: RegisterConfig, initial: Composite | None) -> list[_Start]:
    if initial is not None:
        return [_Start(view, initial) for view in views]
    found = [(view, candidate) for view in views for candidate in search(view, config)]
    return [_Start(view, Composite((candidate.transform,)), candidate) for view, candidate in found]


def _refined(start: _Start, number: int, judges: dict[str, HeldOut], fitter: Fitter) -> _Start:
    """Return the start after a quick rigid fit on its own view, with its significance by all views."""
    began, error = time.monotonic(), ""
    transform, scores = start.transform, dict.fromkeys(judges, math.nan)
    try:
        transform = fitter.quick(start.view, start.transform, number)
        scores = {name: judge.significance(transform) for name, judge in judges.items()}
    except RegistrationError as failure:
        error = str(failure)
    report = _report(start, transform, scores, time.monotonic() - began, error)
    return replace(start, transform=transform, report=report)


def _report(
    start: _Start, transform: Composite, scores: dict[str, float], seconds: float, error: str
) -> CandidateReport:
    matrix = _linear(transform)
    mirrored = bool(np.linalg.det(matrix) < 0)
    turn = matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    angle = math.degrees(math.atan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])) % 360
    found = start.candidate
    score, z = (found.score, found.z) if found else (math.nan, math.nan)
    return CandidateReport(start.view.name, angle, mirrored, score, z, scores, seconds, error)


def _linear(transform: Composite) -> NDArray[np.float64]:
    matrix = np.eye(2)
    for part in transform.parts:
        matrix = part.matrix @ matrix if isinstance(part, Affine) else matrix
    return matrix


def _nothing_found(reports: Sequence[CandidateReport]) -> str:
    errors = sorted({report.error for report in reports if report.error})
    reason = "; ".join(errors) or "too little of the tissue overlaps on the held-out tiles"
    return f"none of {len(reports)} starts could be refined: {reason}"


def _final_view(views: Sequence[View], best: _Start, config: RegisterConfig) -> tuple[View, list[View]]:
    """Return the view for the full fit, the representations if they are significant there, and the others."""
    scores = best.report.held_out if best.report else {}
    ranked = sorted(views, key=lambda view: view.name != "comir")
    trusted = [view for view in ranked if scores.get(view.name, math.nan) >= config.trust_z]
    chosen = (trusted or sorted(ranked, key=lambda view: view.name != "raw"))[0]
    return chosen, [view for view in views if view is not chosen]
