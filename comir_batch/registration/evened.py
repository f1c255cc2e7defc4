"""Raw images less what changes slowly over the tissue, which is alike in many places, and so tells little of any."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.registration.images import RegistrationImage, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.float32]

_SHARE = 1 / 32  # of the tissue's longer side: standard deviation of the surroundings
_ENOUGH = 4.0  # pixels of it: beyond them, means are made of smaller images
_LEAST = 1e-3  # of the surroundings' weight, where there is hardly any tissue in them


def raw_view(fixed: RegistrationImage, moving: RegistrationImage) -> View:
    """Return the view of two images as scanned, in grey, which mutual information compares; both are `evened`."""
    return View("raw", "mi", evened(fixed), evened(moving))


def evened(image: RegistrationImage) -> RegistrationImage:
    """Return an image less the mean of each pixel's surroundings, as far as they are tissue.

    Slow changes, of light, of staining, from one region of an organ to the next, correlate over hundreds of pixels. Of
    two such images few samples are independent, so that the best of many wrong places is about as likely as the right
    one.
    """
    sigma = _SHARE * max(image.cropped().grid.shape)
    factor = max(int(sigma / _ENOUGH), 1)
    weight = image.mask.astype(np.float32)
    inside = np.where(image.mask, image.pixels, np.float32(0))
    total, share = (_surroundings(plane, sigma, factor) for plane in (inside, weight))
    mean = total / np.maximum(share, np.float32(_LEAST))
    return replace(image, pixels=(image.pixels - mean).astype(np.float32, copy=False), scanned=image.pixels)


def _surroundings(plane: Plane, sigma: float, factor: int) -> Plane:
    """Return the weighted sum of each pixel's surroundings, of an image `factor` times as small where that suffices."""
    height, width = plane.shape
    size = max(width // factor, 1), max(height // factor, 1)
    smaller = cv2.resize(plane, size, interpolation=cv2.INTER_AREA) if factor > 1 else plane
    blurred = cv2.GaussianBlur(
        smaller,
        (0, 0),
        sigmaX=sigma * size[0] / width,
        sigmaY=sigma * size[1] / height,
        borderType=cv2.BORDER_CONSTANT,
    )
    whole = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR) if factor > 1 else blurred
    return np.asarray(whole, dtype=np.float32)
