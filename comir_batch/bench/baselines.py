"""Registration as others do it, for comparison: elastix from a few starts, and SIFT."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.elastix_process import ElastixRequest, shared_process
from comir_batch.registration.features import sift_matches, similarity

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.images import RegistrationImage

_METRICS = {"mi": "AdvancedMattesMutualInformation", "ncc": "AdvancedNormalizedCorrelation"}
START_RADIANS = (-0.4, 0.0, 0.4)
ITERATIONS = 1024
_COARSEST_SIDE = 32
_FINAL_METRIC = re.compile(r"Final metric value\s*=\s*(-?[\d.]+(?:[eE][-+]?\d+)?)")
SIFT_FEATURES, RANSAC_TRIALS, RANSAC_PX = 500, 2000, 2.0
WHOLE_FEATURES = 2000
_LEAST_AGREEING = 6


def elastix_rigid(
    fixed: RegistrationImage,
    moving: RegistrationImage,
    threads: int,
    folder: Path,
    *,
    metric: Literal["mi", "ncc"] = "mi",
    starts: Sequence[float] = START_RADIANS,
) -> Composite | None:
    """Return the best of a few rigid fits, as in MultiRegEval (Lu et al., PLOS ONE 2022); None if all fail.

    elastix' default rigid parameters with 1024 iterations a resolution and as many resolutions (4 for sides of 256 to
    511 pixels); starts turned about the centre, by default by -0.4, 0 and 0.4 radians; the lowest final metric value
    wins.

    Parameters
    ----------
    fixed, moving : RegistrationImage
        The images.
    threads : int
        Of elastix.
    folder : Path
        Takes its files.
    metric : {"mi", "ncc"}
        Mutual information, as there, or normalised correlation for images that look alike.
    starts : sequence of float
        Turns in radians.
    """
    stage = {**_default_rigid(min(fixed.grid.shape)), "Metric": (_METRICS[metric],)}
    centre, found = fixed.grid.corners_um().mean(axis=0), []
    for radians in starts:
        cosine, sine = math.cos(radians), math.sin(radians)
        start = Composite((Affine.about([[cosine, -sine], [sine, cosine]], centre, (0.0, 0.0)),))
        request = ElastixRequest(fixed, moving, (stage,), start, folder, 600.0)
        try:
            transform = shared_process(threads).register(request).transform
            found.append((_final_metric(folder / "elastix.log"), transform))
        except RegistrationError:
            continue
    return min(found, key=lambda each: each[0])[1] if found else None


def elastix_affine(
    fixed: RegistrationImage, moving: RegistrationImage, start: Composite, threads: int, folder: Path
) -> Composite:
    """Return a rigid and then an affine fit by mutual information, with the settings of `elastix_rigid`.

    Raises
    ------
    RegistrationError
        If elastix fails.
    """
    rigid = {**_default_rigid(min(fixed.grid.shape)), "Metric": (_METRICS["mi"],)}
    stages = rigid, {**rigid, "Transform": ("AffineTransform",)}
    return shared_process(threads).register(ElastixRequest(fixed, moving, stages, start, folder, 600.0)).transform


def _final_metric(log: Path) -> float:
    values = _FINAL_METRIC.findall(log.read_text(encoding="utf-8", errors="replace"))
    if not values:
        raise RegistrationError(f"{log} names no final metric value")
    return float(values[-1])


def _default_rigid(side: int) -> ParameterMap:
    """Return elastix' own default rigid map, without a metric, with MultiRegEval's resolutions and iterations."""
    levels = max(math.floor(math.log2(side / _COARSEST_SIDE)) + 1, 1)
    numbers = {
        "FixedImageDimension": 2,
        "MovingImageDimension": 2,
        "NumberOfResolutions": levels,
        "MaximumNumberOfIterations": ITERATIONS,
        "NumberOfSpatialSamples": 2048,
        "NumberOfSamplesForExactGradient": 4096,
        "MaximumNumberOfSamplingAttempts": 8,
        "DefaultPixelValue": 0,
        "RandomSeed": 1000,
    }
    texts = {
        "FixedInternalImagePixelType": "float",
        "MovingInternalImagePixelType": "float",
        "Registration": "MultiResolutionRegistration",
        "FixedImagePyramid": "FixedSmoothingImagePyramid",
        "MovingImagePyramid": "MovingSmoothingImagePyramid",
        "Interpolator": "LinearInterpolator",
        "ResampleInterpolator": "FinalBSplineInterpolator",
        "Resampler": "DefaultResampler",
        "ImageSampler": "RandomCoordinate",
        "NewSamplesEveryIteration": "true",
        "CheckNumberOfSamples": "true",
        "Optimizer": "AdaptiveStochasticGradientDescent",
        "AutomaticParameterEstimation": "true",
        "AutomaticScalesEstimation": "true",
        "AutomaticTransformInitialization": "false",
        "HowToCombineTransforms": "Compose",
        "Transform": "EulerTransform",
        "WriteResultImage": "false",
    }
    return {key: (str(value),) for key, value in {**numbers, **texts}.items()}


def sift_rigid(
    images: tuple[NDArray[np.float32], NDArray[np.float32]], masks: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> NDArray[np.float64] | None:
    """Return the rigid ``(2, 3)`` map of fixed to moving pixels on which most SIFT matches agree; None without three.

    As in MultiRegEval: 500 features of each image (Lowe, IJCV 2004), matched both ways by Euclidean distance, RANSAC
    with 2 pixels; but 2000 trials instead of 100, and a fit to all matches that agree.
    """
    points = sift_matches(images, masks, SIFT_FEATURES)
    if points is None:
        return None
    fixed, moving = points
    generator = np.random.default_rng(1000)
    pairs = np.stack([generator.permutation(len(fixed))[:2] for _ in range(RANSAC_TRIALS)])
    maps = np.stack([_rigid_fit(fixed[pair], moving[pair]) for pair in pairs])
    errors = np.linalg.norm(fixed @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2] - moving, axis=2)
    agreeing = errors[int((errors <= RANSAC_PX).sum(axis=1).argmax())] <= RANSAC_PX
    return _rigid_fit(fixed[agreeing], moving[agreeing]) if agreeing.sum() >= 3 else None


def sift_affine(fixed: RegistrationImage, moving: RegistrationImage) -> Composite | None:
    """Return the affine transform on which most SIFT matches of two whole images agree; None without enough.

    As `sift_rigid`, with 2000 features of each image; with fewer than six matches that agree there is no transform, for
    three always do.
    """
    points = sift_matches((fixed.pixels, moving.pixels), (fixed.mask, moving.mask), WHOLE_FEATURES)
    if points is None:
        return None
    there = fixed.grid.to_um(points[0]), moving.grid.to_um(points[1])
    within = RANSAC_PX * max(moving.grid.mpp_x, moving.grid.mpp_y)
    matrix, agreeing = cv2.estimateAffine2D(
        *there, method=cv2.RANSAC, ransacReprojThreshold=within, maxIters=RANSAC_TRIALS
    )
    if matrix is None or int(agreeing.sum()) < _LEAST_AGREEING:
        return None
    found = np.asarray(matrix, dtype=np.float64)
    return Composite((Affine(found[:, :2], found[:, 2]),))


def _rigid_fit(fixed: NDArray[np.float64], moving: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rigid ``(2, 3)`` map of least squares."""
    found = similarity(fixed, moving, scaled=False)
    return np.column_stack([found.matrix, found.offset])
