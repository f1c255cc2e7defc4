"""What the registration benchmark compares, on one field: baselines, and our pipeline with and without a model."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

from comir_batch.bench.baselines import elastix_mutual_information, sift_rigid
from comir_batch.core.errors import RegistrationError
from comir_batch.registration.elastix_process import shared_process
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.starts import Starts, final_view
from comir_batch.representation.one_image import as_one_image

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.bench.fields import Condition, Sample
    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.transform import Composite
    from comir_batch.registration.starts import Start

    Image = NDArray[np.float32]
    Represent = Callable[[Image], Image]

METHODS = {
    "elastix": "elastix MI on raw images, 3 starts",
    "sift": "SIFT on CoMIRs",
    "raw": "comir-batch without a model",
    "comir": "comir-batch, CoMIRs alone",
    "both": "comir-batch with the model",
}
"""Titles of the methods by name."""
_VIEWS = {"raw": ("raw",), "comir": ("comir",), "both": ("comir", "raw")}
_NEED_COMIRS = {"sift", "comir", "both"}


class Measured(NamedTuple):
    """What a method made of a field.

    Attributes
    ----------
    error_px : float or None
        Mean distance at the field's points; None if there is no transform.
    seconds : float
        CPU time that the method takes on its own, of all its processes.
    """

    error_px: float | None
    seconds: float


def methods_for(condition: Condition) -> tuple[str, ...]:
    """Return the names of the methods that can hope to register the fields of a condition.

    elastix starts within 23 degrees and is rigid, so it is asked for small angles only; a rigid SIFT cannot mirror;
    neither bends.
    """
    hopeless = {
        "elastix": condition.angle != "small" or condition.bent,
        "sift": condition.angle == "mirrored" or condition.bent,
    }
    return tuple(name for name in METHODS if not hopeless.get(name, False))


def measure(
    sample: Sample,
    wanted: Collection[str],
    represent: tuple[Represent, Represent],
    config: RegisterConfig,
    folder: Path,
    *,
    deformable: bool,
) -> dict[str, Measured]:
    """Register a field by some methods, and return the errors by name of the method.

    Searches, refined starts and fits that several methods have in common are done once.

    Parameters
    ----------
    sample : Sample
        The field.
    wanted : collection of str
        Names of methods.
    represent : (callable, callable)
        Normalised fixed and moving crops ``(C, S, S)`` to CoMIRs ``(latent, S, S)``.
    config : RegisterConfig
        Of our pipeline.
    folder : Path
        For elastix; removed afterwards.
    deformable : bool
        Whether our pipeline bends, too.
    """
    clock = _Clock(config.threads)
    found: dict[str, tuple[Composite | None, Sequence[str]]] = {}
    try:
        if "elastix" in wanted:
            with clock.measuring("elastix"):
                transform = elastix_mutual_information(*_images(sample, sample.grey), config.threads, folder / "starts")
            found["elastix"] = transform, ["elastix"]
        comir = _represented(sample, represent, clock) if _NEED_COMIRS & set(wanted) else None
        if comir and "sift" in wanted:
            with clock.measuring("sift"):
                matrix = sift_rigid(comir, sample.masks)
            found["sift"] = None if matrix is None else sample.in_um(matrix), ["represent", "sift"]
        found |= _Pipelines(sample, comir, config, folder, clock).found(wanted, deformable=deformable)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        name: Measured(_error(sample, transform), sum(clock.seconds.get(step, 0.0) for step in steps))
        for name, (transform, steps) in found.items()
    }


def _represented(sample: Sample, represent: tuple[Represent, Represent], clock: _Clock) -> tuple[Image, Image]:
    with clock.measuring("represent"):
        first, second = (run(crop) for run, crop in zip(represent, sample.inputs, strict=True))
        fixed, moving = as_one_image((first, second), sample.masks)
    return fixed, moving


def _error(sample: Sample, transform: Composite | None) -> float | None:
    return None if transform is None else float(sample.errors_px(transform).mean())


def _images(sample: Sample, pixels: tuple[Image, Image]) -> tuple[RegistrationImage, RegistrationImage]:
    fixed, moving = (RegistrationImage(p, m, sample.grid) for p, m in zip(pixels, sample.masks, strict=True))
    return fixed, moving


class _Clock:
    """CPU seconds of this process and of its elastix, by name of what was done."""

    def __init__(self, threads: int) -> None:
        self.seconds: dict[str, float] = {}
        self._elastix = shared_process(threads)

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        began = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self._now() - began

    def _now(self) -> float:
        pid = self._elastix.pid
        child = psutil.Process(pid).cpu_times() if pid else None
        return time.process_time() + (child.user + child.system if child else 0.0)


class _Pipelines:
    """Our pipeline on both views of a field, and on each alone; what they share is computed once."""

    def __init__(
        self, sample: Sample, comir: tuple[Image, Image] | None, config: RegisterConfig, folder: Path, clock: _Clock
    ) -> None:
        self._config, self._folder, self._clock = config, folder, clock
        comirs = [] if comir is None else [View("comir", "ncc", *_images(sample, comir))]
        self._views = [*comirs, View("raw", "mi", *_images(sample, sample.grey))]
        self._fits: dict[str, Composite | None] = {}

    def found(self, wanted: Collection[str], *, deformable: bool) -> dict[str, tuple[Composite | None, Sequence[str]]]:
        """Return the transform of each method of ours that is wanted, and the steps that it takes."""
        methods = {method: names for method, names in _VIEWS.items() if method in wanted}
        needed = {name for names in methods.values() for name in names}
        if not needed:
            return {}
        try:
            views = [view for view in self._views if view.name in needed]
            starts = Starts(views, self._config, self._folder)
        except RegistrationError:  # nothing to hold out
            return dict.fromkeys(methods, (None, ()))
        judged: dict[str, list[Start]] = {view.name: self._judged(starts, view) for view in starts.views}
        found: dict[str, tuple[Composite | None, Sequence[str]]] = {}
        for method, names in methods.items():
            steps = [f"{step} {name}" for name in names for step in ("search", "starts")]
            mine = [start.judged_by(names) for name in names for start in judged[name]]
            views = [view for view in starts.views if view.name in names]
            fit = self._fit(views, mine, deformable=deformable) if all(judged[name] for name in names) else ""
            own = ["represent"] if "comir" in names else []
            found[method] = self._fits.get(fit), [*own, *steps, fit]
        return found

    def _judged(self, starts: Starts, view: View) -> list[Start]:
        """Return the starts that one view finds, as all judge them; empty if it finds none."""
        try:
            with self._clock.measuring(f"search {view.name}"):
                found = starts.searched(view)
        except RegistrationError:
            return []
        with self._clock.measuring(f"starts {view.name}"):
            return [starts.refined(start) for start in found]

    def _fit(self, views: Sequence[View], starts: Sequence[Start], *, deformable: bool) -> str:
        """Fit the best start as `registration.register` does, and return the step's name; empty if none is usable."""
        best = max(starts, key=lambda start: start.total)
        if not math.isfinite(best.total):
            return ""
        view, _ = final_view(views, best, self._config)
        step = f"fit {view.name} {id(best.transform)}"
        if step not in self._fits:
            fitter = Fitter(self._config, self._folder)
            with self._clock.measuring(step):
                fitted = fitter.full(view, best.transform, self._folder / "fit", deformable=deformable)
            self._fits[step] = fitted.transform
        return step
