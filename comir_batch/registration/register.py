"""Registration of one pair: starts from every view, the best of them on held-out tiles, and its full fit."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration import parameters
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.elastix_process import ElastixRequest, shared_process
from comir_batch.registration.held_out import HeldOut, held_out_tiles
from comir_batch.registration.search import Candidate, search

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.images import RegistrationImage, View

_START_SIDES = 2  # starts are refined on images of so many times the search's side
_FINE_LEVELS = 3


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
    fitter = _Fitter(config, folder)
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


def _refined(start: _Start, number: int, judges: dict[str, HeldOut], fitter: _Fitter) -> _Start:
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


class _Fitter:
    """Runs elastix on a view."""

    def __init__(self, config: RegisterConfig, folder: Path) -> None:
        self._config, self._folder = config, folder

    def quick(self, view: View, start: Composite, number: int) -> Composite:
        """Refine a start rigidly on coarse images."""
        mpp = common_mpp(view.fixed, view.moving, _START_SIDES * self._config.search_side)
        coarse = replace(view, fixed=coarsened(view.fixed, mpp), moving=coarsened(view.moving, mpp))
        levels = parameters.resolutions(coarse.fixed.grid)
        stages = (parameters.rigid(view.metric, self._config, levels),)
        return self._run(coarse, stages, start, self._folder / f"start-{number}")

    def full(self, view: View, start: Composite, folder: Path, *, deformable: bool) -> Composite:
        """Fit rigid, affine and perhaps B-spline at full resolution, and join the affine parts."""
        levels = parameters.resolutions(view.fixed.grid)
        fine, metric = min(levels, _FINE_LEVELS), view.metric
        stages = [parameters.rigid(metric, self._config, fine), parameters.affine(metric, self._config, fine)]
        if deformable:
            stages.append(parameters.bspline(metric, self._config, levels))
        return _joined(self._run(view, tuple(stages), start, folder))

    def other(self, views: Sequence[View], start: Composite, folder: Path) -> tuple[Composite | None, str]:
        """Fit rigid and affine on the first of the other views, if there is one."""
        try:
            return (self.full(views[0], start, folder, deformable=False) if views else None), ""
        except RegistrationError as error:
            return None, str(error)

    def _run(self, view: View, stages: tuple[ParameterMap, ...], start: Composite, folder: Path) -> Composite:
        fixed, moving = _prepared(view.fixed, view.metric), _prepared(view.moving, view.metric)
        request = ElastixRequest(fixed, moving, stages, start, folder, self._config.time_limit_s)
        return shared_process(self._config.threads).register(request).transform


def _prepared(image: RegistrationImage, metric: str) -> RegistrationImage:
    """Return the image as elastix compares it.

    Outside the mask stands the mean of the inside, so that a pyramid's smoothing brings no edge in. Mutual information
    gets ranks instead of intensities: its histogram has bins of equal width, which a few bright pixels would empty.
    """
    inside = image.pixels[image.mask]
    if metric == "mi":
        limits = np.quantile(inside, np.linspace(0, 1, 257)).astype(np.float32)
        limits, ranks = np.unique(limits, return_index=True)
        pixels = np.interp(image.pixels, limits, ranks / 256).astype(np.float32)
        inside = pixels[image.mask]
    else:
        pixels = image.pixels
    return replace(image, pixels=np.where(image.mask, pixels, inside.mean()).astype(np.float32))


def _joined(transform: Composite) -> Composite:
    """Return the same transform with neighbouring affine parts multiplied."""
    parts: list[Affine | BSpline] = []
    for part in transform.parts:
        if parts and isinstance(part, Affine) and isinstance(parts[-1], Affine):
            parts[-1] = part.after(parts[-1])
        else:
            parts.append(part)
    return Composite(tuple(parts))
