"""Our pipeline on one field of the registration benchmark, with the evidence that a run would judge it by."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

from comir_batch.core.errors import RegistrationError
from comir_batch.pipeline.evidence import Found, gather, sights
from comir_batch.pipeline.start import start_transform
from comir_batch.registration.elastix_process import shared_process
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import View
from comir_batch.registration.starts import Starts, full_fit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Composite
    from comir_batch.quality.verdict import Evidence
    from comir_batch.registration.fit import Fitted
    from comir_batch.registration.images import RegistrationImage
    from comir_batch.registration.starts import Start

VIEWS = {"raw": ("raw",), "comir": ("comir",), "both": ("comir", "raw")}
"""The views that each method of ours registers."""


class Result(NamedTuple):
    """What a method found on a field: a transform or None, the steps that it took, and evidence where it gives some."""

    transform: Composite | None
    steps: Sequence[str]
    evidence: Evidence | None = None


class Clock:
    """CPU seconds of this process and of its elastix, by name of what was done."""

    def __init__(self, threads: int) -> None:
        self._seconds: dict[str, float] = {}
        self._elastix = shared_process(threads)

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        """Keep what is spent until the end."""
        began = self._now()
        try:
            yield
        finally:
            self._seconds[name] = self._now() - began

    def total(self, names: Iterable[str]) -> float:
        """Return what some steps took."""
        return sum(self._seconds.get(name, 0.0) for name in names)

    def _now(self) -> float:
        pid = self._elastix.pid
        child = psutil.Process(pid).cpu_times() if pid else None
        return time.process_time() + (child.user + child.system if child else 0.0)


class Pipelines:
    """Our pipeline on both views of a field, and on each alone; what they share is computed once.

    Parameters
    ----------
    images : mapping of (RegistrationImage, RegistrationImage)
        Fixed and moving image of `raw`, and of `comir` if that is wanted.
    config : RegisterConfig
        Settings.
    folder : Path
        For elastix.
    clock : Clock
        Measures each step.
    model : (str, int) or None
        Name of the model that represents, and number of slides that it learnt from, for the verdict; None where no
        verdict is wanted.
    """

    def __init__(
        self,
        images: Mapping[str, tuple[RegistrationImage, RegistrationImage]],
        config: RegisterConfig,
        folder: Path,
        clock: Clock,
        model: tuple[str, int] | None,
    ) -> None:
        self._config, self._folder, self._clock, self._model = config, folder, clock, model
        comirs = [View("comir", "ncc", *images["comir"])] if "comir" in images else []
        self._views = [*comirs, View("raw", "mi", *images["raw"])]
        self._fits: dict[str, Fitted] = {}

    def found(self, wanted: Collection[str], *, deformable: bool) -> dict[str, Result]:
        """Return what each method of ours that is wanted makes of the field."""
        methods = {method: names for method, names in VIEWS.items() if method in wanted}
        needed = {name for names in methods.values() for name in names}
        if not needed:
            return {}
        try:
            views = [view for view in self._views if view.name in needed]
            starts = Starts(views, self._config, self._folder)
        except RegistrationError:  # nothing to hold out
            return dict.fromkeys(methods, Result(None, ()))
        judged: dict[str, list[Start]] = {view.name: self._judged(starts, view) for view in starts.views}
        return {method: self._result(starts, names, judged, deformable=deformable) for method, names in methods.items()}

    def _judged(self, starts: Starts, view: View) -> list[Start]:
        """Return the starts that one view finds, as all judge them; empty if it finds none."""
        try:
            with self._clock.measuring(f"search {view.name}"):
                found = starts.searched(view)
        except RegistrationError:
            return []
        with self._clock.measuring(f"starts {view.name}"):
            return [starts.refined(start) for start in found]

    def _result(
        self, starts: Starts, names: Sequence[str], judged: Mapping[str, Sequence[Start]], *, deformable: bool
    ) -> Result:
        """Fit the best start of some views as `registration.register` does."""
        own = ["represent"] if "comir" in names else []
        steps = [*own, *(f"{step} {name}" for name in names for step in ("search", "starts"))]
        mine = [start.judged_by(names) for name in names for start in judged[name]]
        best = max(mine, key=lambda start: start.total, default=None)
        if best is None or not all(judged[name] for name in names) or not math.isfinite(best.total):
            return Result(None, steps)
        views = [view for view in starts.views if view.name in names]

        def fit(view: View) -> Fitted:
            step, fitted = self._fitted(view, best.transform, deformable=deformable)
            steps.append(step)
            return fitted

        view, others, fitted, set_aside = full_fit(starts, best, views, self._config, fit)
        if self._model is None:
            return Result(fitted.transform, steps)
        before = start_transform(view.fixed.grid, view.moving.grid, None)
        other = self._other(others, best.transform, deformable=deformable)
        found = Found(view.name, before, fitted.transform, starts.held_out, fitted.attempts, other, set_aside=set_aside)
        return Result(fitted.transform, steps, self._evidence(names, found))

    def _fitted(self, view: View, start: Composite, *, deformable: bool) -> tuple[str, Fitted]:
        """Return the name of the step, and the full fit."""
        step = _fit(view, start)
        if step not in self._fits:
            fitter = Fitter(self._config, self._folder)
            with self._clock.measuring(step):
                self._fits[step] = fitter.full(view, start, self._folder / "fit", deformable=deformable)
        return step, self._fits[step]

    def _other(self, views: Sequence[View], start: Composite, *, deformable: bool) -> Composite | None:
        """Return what a run finds in the other view; a full fit of another method's, where that is the same."""
        known = self._fits.get(_fit(views[0], start)) if views else None
        if known and len(known.attempts) == 1 and not deformable and not self._config.parameter_files:
            return known.transform
        found, _error = Fitter(self._config, self._folder).other(views, start, self._folder / "other")
        return found

    def _evidence(self, names: Sequence[str], found: Found) -> Evidence:
        """Return what a run would judge by: the raw images always, the model's where it is used."""
        views = [view for view in self._views if view.name in {"raw", *names}]
        model = self._model if "comir" in names else None
        return gather(sights(views, found), found, self._config.seed, model)


def _fit(view: View, start: Composite) -> str:
    return f"fit {view.name} {id(start)}"
