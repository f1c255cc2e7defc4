"""What the registration benchmark compares, on one field: baselines, and our pipeline with and without a model."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.bench.alpha_amd import alpha_amd_rigid
from comir_batch.bench.baselines import elastix_rigid, sift_rigid
from comir_batch.bench.mind import mind_rigid
from comir_batch.bench.ours import VIEWS, Clock, Pipelines, Result
from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.search import search
from comir_batch.representation.one_image import as_one_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.bench.conditions import Condition
    from comir_batch.bench.sample import Sample
    from comir_batch.core.config import RegisterConfig
    from comir_batch.quality.evidence import Evidence

    Image = NDArray[np.float32]
    Images = tuple[RegistrationImage, RegistrationImage]
    Represent = Callable[[Image], Image]
    Run = Callable[[Images, RegisterConfig, Path], Composite | None]

METHODS = {
    "elastix": "elastix MI on raw images, 3 starts",
    "sift": "SIFT on CoMIRs",
    "raw": "comir-batch without a model",
    "comir": "comir-batch, CoMIRs alone",
    "both": "comir-batch with the model",
    "none": "centre on centre",
    "elastix-one": "elastix MI on raw images, 1 start",
    "elastix-comir": "elastix on CoMIRs, 3 starts",
    "amd": "alpha-AMD on CoMIRs, 3 starts",
    "sift-raw": "SIFT on raw images",
    "mi": "search by MI of raw images, no fit",
    "mind": "search by self-similarity (MIND), no fit",
}
"""Titles of the methods by name; columns of the table, in this order."""
DEFAULT = ("elastix", "sift", "raw", "comir", "both")
"""What is measured unless others are asked for."""


class Measured(NamedTuple):
    """What a method made of a field.

    Attributes
    ----------
    error_px : float or None
        Mean distance at the field's points; None if there is no transform, or no truth.
    seconds : float
        CPU time that the transform takes on its own, of all processes.
    evidence : Evidence or None
        What the verdict rests on; None for methods that give none, and where there is no transform.
    """

    error_px: float | None
    seconds: float
    evidence: Evidence | None = None


class Asked(NamedTuple):
    """What to measure on a field: methods by name, whether ours bend, and whether they give evidence for a verdict."""

    methods: tuple[str, ...]
    deformable: bool
    verdicts: bool = True


class _Baseline(NamedTuple):
    """A method of others: what it looks at, how it is run, and which fields it can hope to register."""

    view: str
    run: Run
    angles: tuple[str, ...] = ("small", "any", "mirrored")
    kinds: tuple[str, ...] = ("rigid",)


def _nothing(_images: Images, _config: RegisterConfig, _folder: Path) -> Composite:
    return Composite((Affine.identity(),))  # both crops begin at (0, 0) and have one size


def _elastix(images: Images, config: RegisterConfig, folder: Path) -> Composite | None:
    return elastix_rigid(*images, config.threads, folder / "starts")


def _elastix_once(images: Images, config: RegisterConfig, folder: Path) -> Composite | None:
    return elastix_rigid(*images, config.threads, folder / "starts", starts=(0.0,))


def _elastix_alike(images: Images, config: RegisterConfig, folder: Path) -> Composite | None:
    return elastix_rigid(*images, config.threads, folder / "starts", metric="ncc")


def _amd(images: Images, _config: RegisterConfig, _folder: Path) -> Composite | None:
    return alpha_amd_rigid(*images)


def _sift(images: Images, _config: RegisterConfig, _folder: Path) -> Composite | None:
    fixed, moving = images
    matrix = sift_rigid((fixed.pixels, moving.pixels), (fixed.mask, moving.mask))
    return None if matrix is None else Composite((Affine(matrix[:, :2], matrix[:, 2] * fixed.grid.mpp_x),))


def _information(images: Images, config: RegisterConfig, _folder: Path) -> Composite:
    return Composite((search([View("raw", "mi", *images)], config)[0].transform,))


def _mind(images: Images, config: RegisterConfig, _folder: Path) -> Composite | None:
    return mind_rigid(*images, config)


_NEAR, _UNMIRRORED = ("small",), ("small", "any")
_BASELINES = {
    "elastix": _Baseline("raw", _elastix, _NEAR),
    "sift": _Baseline("comir", _sift, _UNMIRRORED),
    "none": _Baseline("raw", _nothing, kinds=("rigid", "similarity", "bent")),
    "elastix-one": _Baseline("raw", _elastix_once, _NEAR),
    "elastix-comir": _Baseline("comir", _elastix_alike, _NEAR),
    "amd": _Baseline("comir", _amd, _NEAR),
    "sift-raw": _Baseline("raw", _sift, _UNMIRRORED),
    "mi": _Baseline("raw", _information),
    "mind": _Baseline("raw", _mind),
}
_NEED_COMIRS = {name for name, other in _BASELINES.items() if other.view == "comir"} | {
    name for name, views in VIEWS.items() if "comir" in views
}


def methods_for(condition: Condition) -> tuple[str, ...]:
    """Return the names of the methods that can hope to register the fields of a condition.

    elastix starts within 23 degrees, so it is asked for small angles only; SIFT cannot mirror; all but ours are rigid.
    Where fields do not belong together, the verdict counts, and only ours give one.
    """

    def hopes(name: str) -> bool:
        other = _BASELINES.get(name)
        return other is None or (condition.angle in other.angles and condition.kind in other.kinds)

    return tuple(name for name in METHODS if hopes(name))


def measure(
    sample: Sample,
    asked: Asked,
    represent: tuple[Represent, Represent],
    config: RegisterConfig,
    folder: Path,
    model: tuple[str, int],
) -> dict[str, Measured]:
    """Register a field by some methods, and return what they made of it by name of the method.

    Parameters
    ----------
    sample : Sample
        The field.
    asked : Asked
        Methods, and how.
    represent : (callable, callable)
        Normalised fixed and moving crops ``(C, S, S)`` to CoMIRs ``(latent, S, S)``.
    config : RegisterConfig
        Of our pipeline.
    folder : Path
        For elastix; removed afterwards.
    model : (str, int)
        Name of the model that represents, and number of slides that it learnt from; for the verdict.
    """
    clock = Clock(config.threads)
    try:
        images = {"raw": _images(sample, sample.grey)}
        if _NEED_COMIRS & set(asked.methods):
            images["comir"] = _represented(sample, represent, clock)
        found = {name: _baseline(name, images, config, folder, clock) for name in asked.methods if name in _BASELINES}
        ours = Pipelines(images, config, folder, clock, model if asked.verdicts else None)
        found |= ours.found(asked.methods, deformable=asked.deformable)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {name: _measured(sample, result, clock) for name, result in found.items()}


def _images(sample: Sample, pixels: tuple[Image, Image]) -> Images:
    fixed, moving = (RegistrationImage(p, m, sample.grid) for p, m in zip(pixels, sample.masks, strict=True))
    return fixed, moving


def _represented(sample: Sample, represent: tuple[Represent, Represent], clock: Clock) -> Images:
    with clock.measuring("represent"):
        first, second = (run(crop) for run, crop in zip(represent, sample.inputs, strict=True))
        return _images(sample, as_one_image((first, second), sample.masks))


def _baseline(name: str, images: Mapping[str, Images], config: RegisterConfig, folder: Path, clock: Clock) -> Result:
    other = _BASELINES[name]
    steps = ["represent", name] if other.view == "comir" else [name]
    with clock.measuring(name):
        try:
            return Result(other.run(images[other.view], config, folder), steps)
        except RegistrationError:  # nothing overlaps enough
            return Result(None, steps)


def _measured(sample: Sample, result: Result, clock: Clock) -> Measured:
    error = None if result.transform is None else sample.error_px(result.transform)
    return Measured(error, clock.total(result.steps), result.evidence)
