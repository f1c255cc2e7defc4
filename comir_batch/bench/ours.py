"""Our pipeline on one field of the registration benchmark, with the evidence that a run would judge it by."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

from comir_batch.core.errors import RegistrationError
from comir_batch.pipeline.evidence import Found, gather, sights
from comir_batch.pipeline.start import start_transform
from comir_batch.registration.elastix_process import shared_process
from comir_batch.registration.evened import raw_view
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import View, seconded
from comir_batch.registration.starts import Starts, full_fit, margin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Composite
    from comir_batch.quality.evidence import Evidence
    from comir_batch.registration.fit import Fitted
    from comir_batch.registration.images import RegistrationImage
    from comir_batch.registration.starts import Final, Start

VIEWS = {"raw": ("raw",), "comir": ("comir",), "both": ("comir", "raw")}
"""The views that each method of ours registers."""


class Result(NamedTuple):
    """What a method found on a field: a transform or None, the steps that it took, and evidence where it gives some."""

    transform: Composite | None
    steps: Sequence[str]
    evidence: Evidence | None = None


class _Moment(NamedTuple):
    """CPU seconds up to now, and whose: the process of elastix is started anew after a crash."""

    own_s: float
    child: int | None
    child_s: float

    def since(self, began: _Moment) -> float:
        same = began.child_s if began.child == self.child else 0.0
        return self.own_s - began.own_s + self.child_s - same


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
            self._seconds[name] = self._now().since(began)

    def total(self, names: Iterable[str]) -> float:
        """Return what some steps took."""
        return sum(self._seconds.get(name, 0.0) for name in names)

    def _now(self) -> _Moment:
        pid = self._elastix.pid
        child = psutil.Process(pid).cpu_times() if pid else None
        return _Moment(time.process_time(), pid, child.user + child.system if child else 0.0)


class Pipelines:
    """Our pipeline on both views of a field, and on each alone.

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
        self._views = [*comirs, raw_view(*images["raw"])]

    def found(self, wanted: Collection[str], *, deformable: bool) -> dict[str, Result]:
        """Return what each method of ours that is wanted makes of the field."""
        return {
            method: self._result(names, f"register {method}", deformable=deformable)
            for method, names in VIEWS.items()
            if method in wanted
        }

    def _result(self, names: Sequence[str], step: str, *, deformable: bool) -> Result:
        """Register some views as `registration.register` does."""
        steps = ["represent", step] if "comir" in names else [step]
        try:
            with self._clock.measuring(step):
                starts = Starts([view for view in self._views if view.name in names], self._config)
                candidates = starts.found()
                best = candidates[0]
                final = self._final(starts, best, deformable=deformable)
        except RegistrationError:  # nothing to hold out, or nothing overlaps enough
            return Result(None, steps)
        if self._model is None:
            return Result(final.fitted.transform, steps)
        before = start_transform(final.view.fixed.grid, final.view.moving.grid, None)
        fitter, fitted = Fitter(self._config), final.fitted
        others = [fitter.check(view, best.transform, self._folder / "other") for view in final.others]
        backward = fitter.backward(final.view, best.transform, self._folder / "backward")
        found = Found(
            final.view.name,
            before,
            fitted.transform,
            starts.held_out,
            fitted.attempts,
            others[0].transform if others else None,
            backward.transform,
            backward.error,
            margin(candidates),
            set_aside=final.set_aside,
            other_error=others[0].error if others else "",
        )
        return Result(fitted.transform, steps, self._evidence(names, found))

    def _final(self, starts: Starts, best: Start, *, deformable: bool) -> Final:
        """Return the full fit of a start."""
        fitter = Fitter(self._config)

        def fit(view: View) -> Fitted:
            return fitter.full(view, best.transform, self._folder / "fit", deformable=deformable)

        return full_fit(starts, best, seconded(starts.fitted, self._config.second_metric), self._config, fit)

    def _evidence(self, names: Sequence[str], found: Found) -> Evidence:
        """Return what a run would judge by: the raw images always, the model's where it is used."""
        views = [view for view in self._views if view.name in {"raw", *names}]
        model = self._model if "comir" in names else None
        return gather(sights(views, found), found, self._config.seed, model)
