"""Small, smooth copies of the images on one common pixel size, for the global search and for comparing candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.registration.images import RegistrationImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.registration.images import View

_LEVELS = 5
_BLUR_PIXELS = 0.7  # of the coarse grid: what a halving pyramid leaves


def common_mpp(fixed: RegistrationImage, moving: RegistrationImage, side: int) -> float:
    """Return the pixel size in µm at which both tissues are at most ``side`` pixels long, or the images' own."""
    extents = [max(image.cropped().grid.size_um) for image in (fixed, moving)]
    finest = min(max(image.grid.mpp_x, image.grid.mpp_y) for image in (fixed, moving))
    return max(max(extents) / side, finest)


def coarsened(image: RegistrationImage, mpp: float) -> RegistrationImage:
    """Return the masked part of an image at square pixels of ``mpp`` µm, averaged over the mask only.

    Nothing outside the mask leaks into it; pixels that lie outside are zero.
    """
    inside = _halved(image.cropped(), mpp)
    weight = inside.mask.astype(np.float32)
    values = np.where(inside.mask, inside.pixels, np.float32(0))
    factors = mpp / inside.grid.mpp_x, mpp / inside.grid.mpp_y
    sigma = tuple(_BLUR_PIXELS * factor for factor in factors)
    width = max(round(inside.grid.width / factors[0]), 1)
    height = max(round(inside.grid.height / factors[1]), 1)
    grid = inside.grid.coarser(*factors, width, height)
    coarse_values, coarse_weight = (_resampled(_blurred(plane, sigma), factors, grid) for plane in (values, weight))
    mask = coarse_weight > 0.5
    if not mask.any():  # thin tissue: what there is of it
        mask = coarse_weight >= coarse_weight.max()
    return RegistrationImage(np.where(mask, coarse_values / np.maximum(coarse_weight, 1e-6), 0), mask, grid)


def coarse_view(view: View, side: int) -> View:
    """Return a view, and what is beside it, at the pixel size of `common_mpp`."""
    mpp = common_mpp(view.fixed, view.moving, side)

    def smaller(each: View) -> View:
        beside = None if each.beside is None else smaller(each.beside)
        return replace(each, fixed=coarsened(each.fixed, mpp), moving=coarsened(each.moving, mpp), beside=beside)

    return smaller(view)


def _halved(image: RegistrationImage, mpp: float) -> RegistrationImage:
    """Average 2 x 2 pixels until one more halving would be too coarse."""
    while min(mpp / image.grid.mpp_x, mpp / image.grid.mpp_y) >= 4 and min(image.grid.shape) >= 8:
        width, height = image.grid.width // 2, image.grid.height // 2
        inside = image.mask[: 2 * height, : 2 * width].astype(np.float32)
        values = np.where(inside > 0, image.pixels[: 2 * height, : 2 * width], np.float32(0))
        weight, total = (cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in (inside, values))
        mask = weight >= 0.5
        image = RegistrationImage(
            np.where(mask, total / np.maximum(weight, 0.5), 0), mask, image.grid.coarser(2, 2, width, height)
        )
    return image


def _blurred(plane: NDArray[np.float32], sigma: tuple[float, ...]) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(plane, (0, 0), sigmaX=sigma[0], sigmaY=sigma[1], borderType=cv2.BORDER_CONSTANT)
    return np.asarray(blurred, dtype=np.float32)


def _resampled(plane: NDArray[np.float32], factors: tuple[float, float], grid: Grid) -> NDArray[np.float32]:
    to_finer = np.array([[factors[0], 0, (factors[0] - 1) / 2], [0, factors[1], (factors[1] - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (grid.width, grid.height)
    resampled = cv2.warpAffine(plane, to_finer, size, flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(resampled, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class GreyLevels:
    """Limits between a few grey levels, each of which holds as many of the masked pixels as the others.

    Attributes
    ----------
    limits : (levels - 1,) float32
        Ascending.
    """

    limits: NDArray[np.float32]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> GreyLevels:
        """Return the limits for ``(N,)`` values."""
        return cls(np.quantile(values, np.arange(1, _LEVELS) / _LEVELS).astype(np.float32))

    @property
    def count(self) -> int:
        """Number of grey levels."""
        return _LEVELS

    def label(self, values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the level, from 0, of each value."""
        labels = np.zeros(values.shape, np.uint8)
        for limit in self.limits:
            labels += values > limit
        return labels


def shared_area(fixed: RegistrationImage, moving: RegistrationImage) -> float:
    """Return how many pixels are worth one independent sample when two images of one pixel size are compared."""
    return math.sqrt(correlation_area(fixed) * correlation_area(moving))


def correlation_area(image: RegistrationImage) -> float:
    """Return over how many pixels an image is correlated with itself: the sum of its squared autocorrelation.

    Where two such images are compared, ``n`` pixels are worth about ``n / area`` independent ones (Bartlett, 1935).
    """
    values = np.where(image.mask, image.pixels - image.pixels[image.mask].mean(), 0).astype(np.float64)
    shape = [2 * side for side in values.shape]
    power = np.abs(np.fft.rfft2(values, shape)) ** 2
    weights = np.fft.irfft2(np.abs(np.fft.rfft2(image.mask.astype(np.float64), shape)) ** 2, shape)
    products = np.fft.irfft2(power, shape)
    share = np.where(weights > 0.2 * weights[0, 0], products / np.maximum(weights, 1), 0)
    variance = products[0, 0] / weights[0, 0]
    return max(float(((share / variance) ** 2).sum()), 1.0) if variance > 0 else 1.0
