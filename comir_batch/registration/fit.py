"""Fits of one view by elastix, from a start."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import OutOfTimeError, RegistrationError
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration import parameters
from comir_batch.registration.coarse import coarse_view
from comir_batch.registration.comparison import Comparison
from comir_batch.registration.elastix_process import ElastixRequest, shared_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.images import RegistrationImage, View

_COARSE_SIDES = 2  # a fit begins on images of so many times the search's side
_AFFINE_PARAMETERS = 3  # more than those of a rigid transform


class Attempt(NamedTuple):
    """How a fit was tried, and why it failed; no error where it did not."""

    name: str
    error: str = ""
    out_of_time: bool = False


_NO_FIT = Attempt("not at all: the start")


class Fitted(NamedTuple):
    """What a full fit found, and the attempts that it took; only the last one has no error."""

    transform: Composite
    attempts: tuple[Attempt, ...]

    @property
    def is_start(self) -> bool:
        """Whether no fit was made or believed."""
        return self.attempts[-1] == _NO_FIT


def unfitted(start: Composite, tried: Fitted, reason: str) -> Fitted:
    """Return the start instead of a fit, and why."""
    *earlier, last = tried.attempts
    return Fitted(_joined(start), (*earlier, last._replace(error=reason), _NO_FIT))


class Check(NamedTuple):
    """A fit to compare another one with; no transform, and why, where there is none."""

    transform: Composite | None = None
    error: str = ""
    out_of_time: bool = False


class Fitter:
    """Fits the views of one pair with elastix, by a run's settings.

    Parameters
    ----------
    config : RegisterConfig
        Settings.
    outline : View or None
        What the outlines tell, which has a say in whether a transform is affine.
    """

    def __init__(self, config: RegisterConfig, outline: View | None = None) -> None:
        self._config, self._outline = config, outline

    def full(self, view: View, start: Composite, folder: Path, *, deformable: bool) -> Fitted:
        """Fit rigid, affine and perhaps B-spline at full resolution, or the user's stages, and join the affine parts.

        The affine stage is left out where coarse images are not explained better by it, see `_linear`. Where elastix
        fails it is tried again with less asked of it; what is left at last is the start. What takes longer is not
        tried once the time limit was too short.
        """
        attempts: list[Attempt] = []
        for rung in _ladder(self._config, deformable=deformable):
            if rung.longer and any(attempt.out_of_time for attempt in attempts):
                continue
            try:
                transform = Fitter(rung.config, self._outline).once(view, start, folder, deformable=rung.bends)
            except RegistrationError as error:
                reason = _put_aside(folder, len(attempts) + 1, str(error))
                attempts.append(Attempt(rung.name, reason, isinstance(error, OutOfTimeError)))
            else:
                return Fitted(transform, (*attempts, Attempt(rung.name)))
        return Fitted(_joined(start), (*attempts, _NO_FIT))

    def once(self, view: View, start: Composite, folder: Path, *, deformable: bool) -> Composite:
        """Fit as `full` does, without trying again.

        Rigid and affine fits of raw images get them as scanned, B-splines less what changes slowly. Halos, and edges
        that only one image has, draw mutual information of what is fine alone aside as a whole; where light and
        staining change slowly and only one of the images shows it, intensities as scanned bend what should not.

        Raises
        ------
        RegistrationError
            If elastix fails.
        """
        stages = parameters.given(self._config, deformable=deformable)
        if not stages:
            start, stages = self._linear(view.as_scanned(), start, folder / "coarse")
            if deformable:
                stages = (*stages, self._preset(view)["bspline"])
        if stages:
            bends = any("BSpline" in stage["Transform"][0] for stage in stages)
            return _joined(self._run(view if bends else view.as_scanned(), stages, start, folder))
        for path in (folder / "coarse").iterdir():  # nothing is finer
            path.replace(folder / path.name)
        return _joined(start)

    def _linear(self, view: View, start: Composite, folder: Path) -> tuple[Composite, tuple[ParameterMap, ...]]:
        """Return the rigid or affine fit of coarse images, and the stage that takes it to finer resolutions, if any.

        An affine transform has to explain more than a rigid one, by what its further parameters cost (Schwarz, Annals
        of Statistics 1978). Where there is little to go by, as in small images, it would stretch and shear at will.
        """
        coarse = coarse_view(view, _COARSE_SIDES * self._config.search_side)
        finer = min(_halvings(view, coarse), parameters.FINE_LEVELS)
        fitted = coarse if finer else view
        preset = self._preset(fitted)
        affine = self._run(fitted, (preset["rigid"], preset["affine"]), start, folder)
        stage, found = parameters.affine, affine
        rigid = Composite(affine.parts[:-1])
        if self._gain(coarse, rigid, affine) <= 0:
            stage, found = parameters.rigid, rigid
            for path in folder.glob("*Parameters.1.txt"):
                path.unlink()
        return found, (stage(view.metric, self._config, view.fixed.grid, finer, view.second),) if finer else ()

    def _gain(self, coarse: View, rigid: Composite, affine: Composite) -> float:
        """Return by how many nats an affine transform explains more than a rigid one, less what it costs.

        Images are compared where both transforms lay pixels on each other; outlines wherever either does, since what
        tissue does not cover tells most of them.
        """
        compared = Comparison(coarse)
        gain = compared.gain(rigid, affine)
        if self._outline is not None:
            outline = Comparison(coarse_view(self._outline, _COARSE_SIDES * self._config.search_side))
            change = outline.likelihood(affine) - outline.likelihood(rigid)
            gain += change if math.isfinite(change) else 0.0
        return gain - _AFFINE_PARAMETERS / 2 * math.log(len(compared.points))

    def _preset(self, view: View) -> dict[str, ParameterMap]:
        return parameters.preset(view.metric, self._config, view.fixed.grid, view.second)

    def check(self, view: View, start: Composite, folder: Path) -> Check:
        """Fit rigid and affine by the preset, to compare the fit with."""
        return _checked(self._config, self._outline, view.alone(), start, folder)

    def backward(self, view: View, start: Composite, folder: Path) -> Check:
        """Fit rigid and affine by the preset the fixed image to the moving one: moving µm to fixed µm."""
        inverse = Composite(tuple(part.inverse() for part in reversed(start.parts) if isinstance(part, Affine)))
        outline = None if self._outline is None else self._outline.swapped()
        return _checked(self._config, outline, view.swapped(), inverse, folder)

    def _run(self, view: View, stages: tuple[ParameterMap, ...], start: Composite, folder: Path) -> Composite:
        beside = None if view.beside is None else _prepared(view.beside)
        limit = self._config.time_limit_s
        request = ElastixRequest(*_prepared(view), stages, start, folder, limit, beside, view.landmarks)
        return shared_process(self._config.threads).register(request).transform


def _checked(config: RegisterConfig, outline: View | None, view: View, start: Composite, folder: Path) -> Check:
    preset = config.model_copy(update={"parameter_files": ()})
    try:
        return Check(Fitter(preset, outline).once(view, start, folder, deformable=False))
    except RegistrationError as error:
        return Check(None, str(error), isinstance(error, OutOfTimeError))


class _Rung(NamedTuple):
    """A way to try a fit: whether a B-spline is fitted, and whether it takes longer than what was tried before."""

    name: str
    config: RegisterConfig
    bends: bool
    longer: bool = False


def _ladder(config: RegisterConfig, *, deformable: bool) -> Iterator[_Rung]:
    """Yield what is tried, in turn."""
    yield _Rung("as configured", config, deformable)
    if config.parameter_files:
        config = config.model_copy(update={"parameter_files": ()})
        yield _Rung("by the preset instead of the parameter files", config, deformable)
    more = config.model_copy(update={"samples": 4 * config.samples, "grid_um": 2 * config.grid_um})
    name = "four times the samples" + (", half the control points along each axis" * deformable)
    yield _Rung(name, more, deformable, longer=True)
    if deformable:
        yield _Rung("without B-spline", config, bends=False)


def _put_aside(folder: Path, attempt: int, reason: str) -> str:
    """Leave nothing of a failed attempt but its log; return the reason with the log's new name."""
    kept = folder / f"elastix-attempt-{attempt}.log"
    for part in (folder / "coarse", folder):
        for path in part.glob("*.txt"):
            path.unlink()
        log = part / "elastix.log"
        if log.exists():
            log.replace(kept)
        reason = reason.replace(str(log), str(kept))
    return reason


def _halvings(view: View, coarse: View) -> int:
    """Return how often a coarse view's pixels have to be halved to be as fine as the view's."""
    finest = min(max(image.grid.mpp_x, image.grid.mpp_y) for image in (view.fixed, view.moving))
    return max(math.ceil(math.log2(coarse.fixed.grid.mpp_x / finest) - 1e-6), 0)


def _prepared(view: View) -> tuple[RegistrationImage, RegistrationImage]:
    return _comparable(view.fixed, view.metric), _comparable(view.moving, view.metric)


def _comparable(image: RegistrationImage, metric: str) -> RegistrationImage:
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
