"""elastix' parameter maps for each stage, from the configuration.

Stochastic gradient descent with adaptive steps (Klein et al., IJCV 2009) on random samples, from coarse to fine.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Literal

from comir_batch.core.errors import ConfigError
from comir_batch.registration.elastix_maps import is_known_transform, parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.registration.elastix_maps import ParameterMap

    Metric = Literal["ncc", "mi"]
    Second = Literal["none", "raw", "landmarks"]

_METRICS = {"ncc": "AdvancedNormalizedCorrelation", "mi": "AdvancedMattesMutualInformation"}
FINE_LEVELS = 3  # of rigid and affine stages in the full fit; the start has found the rest
_LEAST_SPACING_PX = 16
_SPLINE_ORDER = 3
_SMALL_PIXELS = 1024**2
_FEW_POINTS = 256  # control points that the configured samples are for; more need more, or stay where they were
_MOST_SAMPLES = 2**17  # about a minute of CPU time for the last resolution
_BENDING, _POINTS = "TransformBendingEnergyPenalty", "CorrespondingPointsEuclideanDistanceMetric"
_OF_EACH_IMAGE = ("FixedImagePyramid", "MovingImagePyramid", "Interpolator", "ImageSampler")
_FORCED = {
    "FixedImageDimension": ("2",),
    "MovingImageDimension": ("2",),
    "FixedInternalImagePixelType": ("float",),
    "MovingInternalImagePixelType": ("float",),
    "UseDirectionCosines": ("true",),
    "HowToCombineTransforms": ("Compose",),
    "WriteResultImage": ("false",),
}
_EXACT_SAMPLES = 4096  # for the size of steps; elastix takes 100,000 unless told, which costs as much as the steps
_COARSEST_SIDE = 64
_MOST_RESOLUTIONS = 7


def resolutions(grid: Grid) -> int:
    """Return how many resolutions, each half of the next, bring the shorter side near 64 pixels; at least two."""
    halvings = math.floor(math.log2(min(grid.width, grid.height) / _COARSEST_SIDE)) if min(grid.shape) > 0 else 0
    return min(max(halvings + 1, 2), _MOST_RESOLUTIONS)


def preset(metric: Metric, config: RegisterConfig, grid: Grid, second: Second = "none") -> dict[str, ParameterMap]:
    """Return the maps of the full fit's stages by their names, in order, for fixed images on a grid.

    With raw images as the second metric elastix gets three pairs of images: of the view, raw, and of the view again.
    """
    levels = resolutions(grid)
    few = min(levels, FINE_LEVELS)
    return {
        "rigid": rigid(metric, config, grid, few, second),
        "affine": affine(metric, config, grid, few, second),
        "bspline": bspline(metric, _resolvable(config, grid), grid, levels, second),
    }


def given(config: RegisterConfig, *, deformable: bool) -> tuple[ParameterMap, ...]:
    """Return the user's own stages; without those that bend where nothing shall.

    Raises
    ------
    ConfigError
        If a file is no parameter file, or its transform is not known.
    """
    stages = [_given(number, text, config.seed) for number, text in enumerate(config.parameter_files, start=1)]
    return tuple(stage for stage in stages if deformable or "BSpline" not in stage["Transform"][0])


def require_stages(config: RegisterConfig, registration: str) -> None:
    """Raise ConfigError unless the user's own stages, if there are any, do what the manifest asks of a pair.

    Parameters
    ----------
    config : RegisterConfig
        Settings.
    registration : {"affine", "bspline", "blocks"}
        What the manifest says; blocks bend by themselves.
    """
    if not config.parameter_files:
        return
    bends = len(given(config, deformable=True)) > len(given(config, deformable=False))
    if registration == "affine" and not given(config, deformable=False):
        raise ConfigError(
            "register.parameter_files: all files have B-splines, and the manifest asks for registration = affine. "
            "Give a rigid or an affine one, too, or ask for bspline"
        )
    if registration == "bspline" and not bends:
        raise ConfigError(
            "register.parameter_files: no file has a B-spline, and the manifest asks for registration = bspline, which "
            "it does unless it says otherwise. Give a file with one, too, or ask for affine"
        )


def others_metrics(config: RegisterConfig, metric: Metric) -> tuple[str, ...]:
    """Return the metrics of the user's own stages that the presets compare the other view by."""
    (other,) = (name for kind, name in _METRICS.items() if kind != metric)
    return (other,) if any(other in stage["Metric"] for stage in given(config, deformable=True)) else ()


def _given(number: int, text: str, seed: int) -> ParameterMap:
    parameters = parse(text)
    if not is_known_transform(parameters):
        named = parameters.get("Transform", ("none",))[0]
        raise ConfigError(
            f"register.parameter_files: file {number} has the transform {named}. Give elastix parameter files with an "
            "Euler, similarity, affine, translation or B-spline transform; comir-batch presets write makes some"
        )
    return {"RandomSeed": (str(seed),), **parameters, **_FORCED}


def rigid(metric: Metric, config: RegisterConfig, grid: Grid, levels: int, second: Second = "none") -> ParameterMap:
    """Return the map of the rigid stage."""
    return _seconded(partial(_linear, "EulerTransform", config, grid, levels), metric, second, config)


def affine(metric: Metric, config: RegisterConfig, grid: Grid, levels: int, second: Second = "none") -> ParameterMap:
    """Return the map of the affine stage."""
    return _seconded(partial(_linear, "AffineTransform", config, grid, levels), metric, second, config)


def bspline(metric: Metric, config: RegisterConfig, grid: Grid, levels: int, second: Second = "none") -> ParameterMap:
    """Return the map of the B-spline stage; its grid halves with each resolution until ``config.grid_um``."""
    return _seconded(partial(_bspline, config, grid, levels), metric, second, config)


def _seconded(
    make: Callable[[Metric], ParameterMap], metric: Metric, second: Second, config: RegisterConfig
) -> ParameterMap:
    """Return a stage with a second metric.

    elastix wants one pair of images for all metrics, or one for each, and those of all stages of a call are the same:
    so stages that cannot bend get a bending energy, too.
    """
    stage = make(metric)
    (similarity, *penalties) = _terms(stage)
    if second == "landmarks":
        points = (_POINTS, config.second_weight / config.grid_um)
        return {**stage, **_objective(similarity, *penalties, points)}
    if second == "none" or metric == "mi":
        return stage
    raw = make("mi")
    (information, *_) = _terms(raw)
    bending = penalties or [(_BENDING, config.bending_weight)]
    return {
        **stage,
        **{key: raw[key] for key in ("NumberOfHistogramBins", "NumberOfSpatialSamples")},
        **{key: (*stage[key], *raw[key], *stage[key]) for key in _OF_EACH_IMAGE},
        **_objective(similarity, (information[0], config.second_weight), *bending),
    }


def _terms(stage: ParameterMap) -> list[tuple[str, float]]:
    """Return a stage's metrics with their weights."""
    return [(name, float(stage.get(f"Metric{k}Weight", ("1",))[0])) for k, name in enumerate(stage["Metric"])]


def _objective(*terms: tuple[str, float]) -> ParameterMap:
    """Return what makes elastix minimise a sum of metrics."""
    return {
        "Registration": ("MultiMetricMultiResolutionRegistration",),
        "Metric": tuple(name for name, _ in terms),
        **{f"Metric{k}Weight": (repr(weight),) for k, (_, weight) in enumerate(terms)},
    }


def _linear(transform: str, config: RegisterConfig, grid: Grid, levels: int, metric: Metric) -> ParameterMap:
    return {**_common(metric, config, levels), "Transform": (transform,), **_few(metric, config, grid)}


def _bspline(config: RegisterConfig, grid: Grid, levels: int, metric: Metric) -> ParameterMap:
    steps = [2 ** (levels - 1 - level) for level in range(levels)]
    common = _common(metric, config, levels)
    (least,) = map(int, common["NumberOfSpatialSamples"])
    points = (_control_points(grid, step * config.grid_um) for step in steps)
    samples = (max(least, min(least * number // _FEW_POINTS, _MOST_SAMPLES)) for number in points)
    return {
        **common,
        "Transform": ("RecursiveBSplineTransform",),
        **_objective((_METRICS[metric], 1.0), (_BENDING, config.bending_weight)),
        "FinalGridSpacingInPhysicalUnits": (repr(config.grid_um),) * 2,
        "GridSpacingSchedule": tuple(str(step) for step in steps for _ in "xy"),
        "BSplineTransformSplineOrder": (str(_SPLINE_ORDER),),
        "NumberOfSpatialSamples": tuple(str(number) for number in samples),
    }


def _control_points(grid: Grid, spacing_um: float) -> int:
    return math.prod(math.ceil(side / spacing_um) + _SPLINE_ORDER for side in grid.size_um)


def _resolvable(config: RegisterConfig, grid: Grid) -> RegisterConfig:
    """Keep control points sixteen pixels apart at least: closer ones follow noise and fold."""
    spacing = max(config.grid_um, _LEAST_SPACING_PX * max(grid.mpp_x, grid.mpp_y))
    return config.model_copy(update={"grid_um": spacing})


def _few(metric: Metric, config: RegisterConfig, grid: Grid) -> ParameterMap:
    """Return what transforms of few parameters add.

    Mutual information of small images is of the pixels themselves: interpolation between those of the fixed image, too,
    smooths the noise, more so at some places than at others, and draws flat images by several pixels. elastix' `Random`
    sampler heeds no seed; the one for sparse masks does, but copies all pixels of the mask.
    """
    whole_pixels = metric == "mi" and grid.width * grid.height <= _SMALL_PIXELS
    return {
        "MaximumNumberOfIterations": (str(-(-config.iterations // 2)),),
        "AutomaticScalesEstimation": ("true",),
        "AutomaticTransformInitialization": ("false",),
        **({"NumberOfHistogramBins": ("32",)} if metric == "mi" else {}),
        **({"ImageSampler": ("RandomSparseMask",)} if whole_pixels else {}),
    }


def _common(metric: Metric, config: RegisterConfig, levels: int) -> ParameterMap:
    return {
        "FixedInternalImagePixelType": ("float",),
        "MovingInternalImagePixelType": ("float",),
        "FixedImageDimension": ("2",),
        "MovingImageDimension": ("2",),
        "UseDirectionCosines": ("true",),
        "Registration": ("MultiResolutionRegistration",),
        "FixedImagePyramid": ("FixedRecursiveImagePyramid",),
        "MovingImagePyramid": ("MovingRecursiveImagePyramid",),
        "NumberOfResolutions": (str(levels),),
        "Interpolator": ("LinearInterpolator",),
        "ResampleInterpolator": ("FinalLinearInterpolator",),
        "Resampler": ("DefaultResampler",),
        "HowToCombineTransforms": ("Compose",),
        "Metric": (_METRICS[metric],),
        "NumberOfHistogramBins": ("16",),
        "RequiredRatioOfValidSamples": ("0.05",),
        "ErodeMask": ("false",),  # held-out tiles are so many holes that little would be left of it
        "ImageSampler": ("RandomCoordinate",),
        "NumberOfSpatialSamples": (str(config.samples * (4 if metric == "mi" else 1)),),
        "NumberOfSamplesForExactGradient": (str(_EXACT_SAMPLES),),
        "NewSamplesEveryIteration": ("true",),
        "UseRandomSampleRegion": ("false",),
        "Optimizer": ("AdaptiveStochasticGradientDescent",),
        "MaximumNumberOfIterations": (str(config.iterations),),
        "ASGDParameterEstimationMethod": ("Original",),
        "RandomSeed": (str(config.seed),),
        "WriteIterationInfo": ("false",),
        "WriteResultImage": ("false",),
        "WriteTransformParametersEachResolution": ("false",),
    }
