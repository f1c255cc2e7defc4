"""Starts by features: SIFT keypoints whose matches agree on one rigid transform, or a similarity."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from scipy import stats

from comir_batch.core.transform import Affine
from comir_batch.registration.coarse import coarse_view
from comir_batch.registration.search import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import RegistrationImage, View

    Images = tuple[NDArray[np.float32], NDArray[np.float32]]
    Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]

FEATURES, TRIALS = 2000, 2000
AGREEING_PX = 2.0
_SIDES = 2  # images are so many times the search's side
_MOST_FALSE_ALARMS = 1e-3
_LEAST_MATCHES = 3
_SCALE_TOLERANCE = 1.05


class Matches(NamedTuple):
    """Matched features: ``(N, 2)`` places ``(x, y)`` in pixels of both images."""

    fixed: NDArray[np.float64]
    moving: NDArray[np.float64]


def sift_matches(images: Images, masks: Masks, features: int) -> Matches | None:
    """Return the SIFT features (Lowe, IJCV 2004) of two images that are each other's nearest; None without three.

    Both images are scaled alike, by percentiles 1 and 99 of the two together.
    """
    inside = np.concatenate([image[mask] for image, mask in zip(images, masks, strict=True)])
    low, high = np.percentile(inside, [1, 99])
    sift = cv2.SIFT.create(features, enable_precise_upscale=True)  # else half a pixel off after a half turn
    points, descriptors = [], []
    for image, mask in zip(images, masks, strict=True):
        grey = np.clip((image - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
        keypoints, found = sift.detectAndCompute(grey, mask.astype(np.uint8))
        points.append(np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64))
        descriptors.append(found)
    if any(found is None for found in descriptors):
        return None
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*descriptors)
    if len(matches) < _LEAST_MATCHES:
        return None
    first, second = ([getattr(match, name) for match in matches] for name in ("queryIdx", "trainIdx"))
    return Matches(points[0][first], points[1][second])


def feature_starts(view: View, config: RegisterConfig) -> Iterator[Candidate]:
    """Yield what the features of a view say, as the images lie and mirrored, where it cannot be chance.

    Whether so many matches agree by chance is asked as Moisan and Stival do (IJCV 2004): of the expected number of as
    good an agreement among matches to random places there may be a thousandth.

    Parameters
    ----------
    view : View
        What to compare.
    config : RegisterConfig
        Where it has several `scales`, a start may have any between the smallest and the largest.
    """
    coarse = coarse_view(view.alone(), _SIDES * config.search_side)
    for mirrored in (False, True):
        found = _agreed(coarse.fixed, _mirrored(coarse.moving) if mirrored else coarse.moving, config.scales)
        if found is not None:
            yield _unmirrored(found, coarse.moving) if mirrored else found


def _agreed(fixed: RegistrationImage, moving: RegistrationImage, scales: tuple[float, ...]) -> Candidate | None:
    matches = sift_matches((fixed.pixels, moving.pixels), (fixed.mask, moving.mask), FEATURES)
    if matches is None:
        return None
    there = fixed.grid.to_um(matches.fixed), moving.grid.to_um(matches.moving)
    mpp = moving.grid.mpp_x
    matrix, agreeing = cv2.estimateAffinePartial2D(
        *there, method=cv2.RANSAC, ransacReprojThreshold=AGREEING_PX * mpp, maxIters=TRIALS
    )
    if matrix is None:
        return None
    inside = agreeing.ravel().astype(bool)
    nearby = math.pi * AGREEING_PX**2 / np.count_nonzero(moving.mask)  # chance of a random place to agree
    further = stats.binom(len(inside) - 2, nearby)  # that agree with the two that made the transform
    alarms = math.log(math.comb(len(inside), 2)) + float(further.logsf(inside.sum() - 3))
    if alarms > math.log(_MOST_FALSE_ALARMS) or not _credible(math.hypot(*matrix[:, 0]), scales):
        return None
    transform = similarity(there[0][inside], there[1][inside], scaled=len(scales) > 1)
    z = float((inside.sum() - 2 - further.mean()) / further.std())
    angle = math.degrees(math.atan2(transform.matrix[1, 0], transform.matrix[0, 0])) % 360
    return Candidate(transform, angle, mirrored=False, score=-alarms, z=z, by="features")


def _credible(scale: float, scales: tuple[float, ...]) -> bool:
    """Return whether a scale is among those that may be, or near enough for a start."""
    return min(scales) / _SCALE_TOLERANCE <= scale <= max(scales) * _SCALE_TOLERANCE


def similarity(fixed: NDArray[np.float64], moving: NDArray[np.float64], *, scaled: bool) -> Affine:
    """Return the rigid transform, or similarity, of least squares from ``(N, 2)`` points to others."""
    from_middle, to_middle = fixed.mean(axis=0), moving.mean(axis=0)
    a, b = ((points - middle) @ [1, 1j] for points, middle in ((fixed, from_middle), (moving, to_middle)))
    products = (a.conj() * b).sum()
    turn = products / (np.abs(a) ** 2).sum() if scaled else np.exp(1j * np.angle(products))
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return Affine(linear, to_middle - linear @ from_middle)


def _mirrored(image: RegistrationImage) -> RegistrationImage:
    """Return the image with x reversed, in place."""
    return replace(image, pixels=image.pixels[:, ::-1].copy(), mask=image.mask[:, ::-1].copy())


def _unmirrored(found: Candidate, moving: RegistrationImage) -> Candidate:
    """Return a start to a mirrored image as one to the image itself."""
    middle = moving.grid.corners_um().mean(axis=0)
    back = Affine(np.diag([-1.0, 1.0]), np.array([2 * middle[0], 0.0]))
    return replace(found, transform=back.after(found.transform), angle=-found.angle % 360, mirrored=True)
