"""What work costs, from headers alone: the one place where the times of a plan come from.

Each constant was measured on `MACHINE`, from the CPU seconds that runs recorded; docs/benchmarks.md ("A plan, and what
its run took") says which of which, and has their commands. Another machine has other constants: with
`comir-batch plan --like RUN` a plan goes by what a run of the same site took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from comir_batch.registration import parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.parameters import Metric

FORMAT = "comir-batch costs"
"""Of costs.json."""

REVISION = 2
"""Raised when a prediction of CPU time changes, lest what a run took is laid over another model than its own."""

MACHINE = "one core of a virtual Intel Xeon (Sapphire Rapids, 2.1 GHz), shared with other work"

# CPU seconds; for each MB (10^6 bytes of decoded pixels) where a name ends in _MB, and for each 10^6 registered pixels
# where it ends in _MPX.
_OVERVIEW, _CHUNK_MB = 0.2, 0.035  # a slide; read
_RANGES = 0.06  # a slide
_GIGA_MULTIPLICATIONS = 0.15  # of convolutions of the compact network, float32, one thread
_SEARCH = 10.0  # a pair, at the default angles and side
_MEGASAMPLES = 1.4  # 10^6 samples that elastix draws
_REGISTER_MPX = 2.5
_BLOCK = 0.015  # looked for
_JUDGE, _JUDGE_MPX = 1.2, 3.0  # a pair
_WARP, _WARP_MB = 0.25, 0.045  # a pair; written
_PUBLISH, _TIFF_MB = 0.4, 0.04  # a pair; written
_PAGE, _PAGE_MPX = 1.6, 0.6  # a pair
# What a worker loads once: torch, elastix. A plan counts one worker, for it does not know how many there will be.
_START = {"represent": 2.0, "register": 4.0}

REGISTER_MB, PUBLISH_MB, PAGE_MB = 0.5, 0.1, 3.0
"""Size of what is left of a pair beside its images, by register, by export and by report: elastix' files, the transform
in its dialects, the page."""


class PairSize(NamedTuple):
    """A pair as registration sees it.

    Attributes
    ----------
    grid : Grid
        Of the fixed image that is registered.
    pixels : int
        Of the larger one of both.
    represented : bool
        Whether there are representations besides the raw images.
    deformable : bool
        Whether a B-spline is fitted.
    """

    grid: Grid
    pixels: int
    represented: bool
    deformable: bool


def start_s(stage: str) -> float:
    """Return what a worker loads for a stage before its first task."""
    return _START.get(stage, 0.0)


def chunk_s(read_mb: float) -> float:
    """Return what chunking a slide takes, of which so much is read."""
    return _OVERVIEW + _CHUNK_MB * read_mb


def represent_s(multiplications: float) -> float:
    """Return what representing a slide takes, with so many multiplications in all."""
    return _RANGES + _GIGA_MULTIPLICATIONS * multiplications / 1e9


def register_s(pair: PairSize, config: RegisterConfig) -> float:
    """Return what search and fits of a pair take."""
    search = config.angles / 120 * (config.search_side / 256) ** 2 * len(config.scales)
    return _SEARCH * search + _MEGASAMPLES * megasamples(pair, config) + _REGISTER_MPX * pair.pixels / 1e6


def blocks_s(blocks: float) -> float:
    """Return what refinement by so many blocks takes."""
    return _BLOCK * blocks


def judge_s(pixels: int) -> float:
    """Return what judging a pair takes whose registered images have so many pixels."""
    return _JUDGE + _JUDGE_MPX * pixels / 1e6


def warp_s(written_mb: float) -> float:
    """Return what warping a pair takes, of which so much is written, all levels together."""
    return _WARP + _WARP_MB * written_mb


def export_s(tiff_mb: float) -> float:
    """Return what publishing a pair takes, and so much of an OME-TIFF."""
    return _PUBLISH + _TIFF_MB * tiff_mb


def report_s(pixels: int) -> float:
    """Return what the page of a pair takes whose registered images have so many pixels."""
    return _PAGE + _PAGE_MPX * pixels / 1e6


def megasamples(pair: PairSize, config: RegisterConfig) -> float:
    """Return how many million samples elastix draws for a pair in all: the full fit, the other view's, the one back.

    Fits but the full one are rigid and affine: both on coarse images, then one of them on finer ones. Representations
    are taken to win.
    """
    first: Metric = "ncc" if pair.represented else "mi"
    second = config.second_metric if pair.represented or config.second_metric != "raw" else "none"
    full = parameters.preset(first, config, pair.grid, second)
    given = parameters.given(config, deformable=pair.deformable)
    stages = given or (full["rigid"], full["affine"], full["affine"], *([full["bspline"]] if pair.deformable else []))
    checks = [
        parameters.preset(metric, config, pair.grid) for metric in ([first, "mi"] if pair.represented else [first])
    ]
    linear = [preset[name] for preset in checks for name in ("rigid", "affine", "affine")]
    return _megasamples((*stages, *linear))


def _megasamples(stages: Iterable[ParameterMap]) -> float:
    return sum(_of_stage(stage) for stage in stages) / 1e6


def _of_stage(stage: ParameterMap) -> float:
    levels = int(stage.get("NumberOfResolutions", ("3",))[0])  # what is not said is elastix' own
    samples, iterations = (
        _each(stage.get(key, (default,)), levels)
        for key, default in (("NumberOfSpatialSamples", "5000"), ("MaximumNumberOfIterations", "500"))
    )
    return sum(drawn * times for drawn, times in zip(samples, iterations, strict=True))


def _each(values: Sequence[str], levels: int) -> list[float]:
    """Return one number a resolution; a single one stands for all."""
    numbers = [float(value) for value in values]
    return numbers if len(numbers) == levels else numbers[:1] * levels
