"""Changes of intensity that another scanner, stain or laboratory would make; geometry is the crop reader's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Image = NDArray[np.float32]

# Optical densities of haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston (2001), table 1.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
_DARKEST = 1 / 256


def disturbed(crop: ArrayLike, rng: np.random.Generator, strength: float, *, stained: bool = False) -> Image:
    """Return a crop as another scanner, stain or section would have given it.

    Parameters
    ----------
    crop : (C, Y, X) float32
        Normalised to 0..1.
    rng : numpy.random.Generator
        Source of chance.
    strength : float
        0 leaves the crop as it is, 1 is usual.
    stained : bool
        Whether this is a brightfield image in red, green and blue: then the amounts of stains vary too (Tellez et al.,
        2019).

    Returns
    -------
    (C, Y, X) float32
        In 0..1.
    """
    image = np.clip(np.asarray(crop, dtype=np.float32), 0, 1)
    if strength == 0:
        return image
    if stained and len(image) == 3:
        image = _restained(image, rng, strength)
    if len(image) > 1:
        image = _mixed(image, rng, strength)
    image = _retoned(image, rng, strength)
    image = _relit(image, rng, strength)
    return np.asarray(np.clip(_blurred_or_noisy(image, rng, strength), 0, 1), dtype=np.float32)


def _restained(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Vary the amount and the ground level of each stain, in optical densities."""
    density = -np.log(np.maximum(image, _DARKEST)).reshape(3, -1)
    amounts = np.linalg.solve(_STAINS.T, density)
    factors = np.exp(strength * rng.uniform(-0.3, 0.3, (3, 1)))
    grounds = strength * rng.uniform(-0.05, 0.05, (3, 1))
    return np.asarray(np.exp(-(_STAINS.T @ (amounts * factors + grounds))).reshape(image.shape), dtype=np.float32)


def _mixed(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Let channels leak into each other, as filters of another make would."""
    count = len(image)
    mixing = np.eye(count) + strength * rng.normal(0, 0.05, (count, count))
    mixing /= mixing.sum(axis=1, keepdims=True)
    return np.asarray(np.tensordot(mixing.astype(np.float32), image, axes=1))


def _retoned(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Change gamma, gain and offset: mostly of the whole image, a little of each channel."""
    count = len(image)
    gamma = np.exp(strength * (rng.uniform(-0.35, 0.35) + rng.uniform(-0.1, 0.1, count)))
    gain = np.exp(strength * (rng.uniform(-0.35, 0.35) + rng.uniform(-0.1, 0.1, count)))
    offset = strength * (rng.uniform(-0.06, 0.06) + rng.uniform(-0.02, 0.02, count))
    if count == 1 or rng.random() < 0.5:
        gamma, gain, offset = (np.full(count, value.mean()) for value in (gamma, gain, offset))
    toned = np.clip(image, 0, 1) ** gamma[:, None, None] * gain[:, None, None] + offset[:, None, None]
    return np.asarray(toned, dtype=np.float32)


def _relit(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Let the illumination fall off towards one side."""
    height, width = image.shape[1:]
    slope_y, slope_x = strength * rng.uniform(-0.12, 0.12, 2)
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    return np.asarray(image * (1 + np.float32(slope_y) * y[:, None] + np.float32(slope_x) * x), dtype=np.float32)


def _blurred_or_noisy(image: Image, rng: np.random.Generator, strength: float) -> Image:
    if rng.random() < 0.3 * strength:
        sigma = float(rng.uniform(0.3, 1.2))
        image = np.stack([cv2.GaussianBlur(channel, (0, 0), sigma) for channel in image])
    if rng.random() < 0.3 * strength:
        image = np.asarray(image + rng.normal(0, rng.uniform(0, 0.04), image.shape), dtype=np.float32)
    return image
