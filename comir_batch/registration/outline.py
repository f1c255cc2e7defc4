"""Where tissue ends and glass begins: a view of the outlines, which tell where whole sections lie; a rim of glass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.registration.images import RegistrationImage, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEAR = 0.02  # of the longer tissue's side: within it, the glass is near
_RIM = 3 * _NEAR
_LEAST = 0.01  # of each tissue must lie near glass, else it is a cut-out that has no outline to speak of


def outlines(view: View) -> View | None:
    """Return how near the glass is in both images of a view; None where one of the tissues hardly ends in its image.

    What lies beyond an image is no glass. Pixels fall from 1 beside the glass to ``1/e`` at a fiftieth of the tissue's
    side, so that outlines agree where they are as far apart as serial sections and hurried masks differ.
    """
    near = _NEAR * _longer_side(view)
    fixed, moving = (_nearness(image, near) for image in (view.fixed, view.moving))
    if min(np.mean(image.pixels[image.mask] > np.exp(-1)) for image in (fixed, moving)) < _LEAST:
        return None
    return View("outline", "ncc", fixed, moving)


def rimmed(view: View) -> View:
    """Return a view whose masks hold a rim of glass, too, so that a fit sees where the tissue ends.

    Inside pale tissue, mutual information tells little of its size.
    """
    rim = _RIM * _longer_side(view)
    return replace(view, fixed=_widened(view.fixed, rim), moving=_widened(view.moving, rim))


def _widened(image: RegistrationImage, rim: float) -> RegistrationImage:
    away = cv2.distanceTransform((~image.mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return image.masked(away * max(image.grid.mpp_x, image.grid.mpp_y) <= rim)


def _longer_side(view: View) -> float:
    """Return the longer side of both tissues in µm."""
    return max(max(image.cropped().grid.size_um) for image in (view.fixed, view.moving))


def _nearness(image: RegistrationImage, near: float) -> RegistrationImage:
    """Return the image whose pixels tell how near the glass is, in units of `near` µm."""
    tissue = np.pad(image.mask, 1, mode="edge").astype(np.uint8)  # else all would end at the image's border
    pixel = max(image.grid.mpp_x, image.grid.mpp_y)
    far = max(image.grid.shape)  # where there is no glass at all
    distance = cv2.distanceTransform(tissue, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1] if not tissue.all() else far
    pixels: NDArray[np.float32] = np.exp(np.broadcast_to(-np.float32(pixel / near) * distance, image.grid.shape))
    return RegistrationImage(pixels.astype(np.float32), image.mask, image.grid)
