"""Where the tissue is, told from a thumbnail.

Generous on purpose: what the mask leaves out is never looked at again, what it takes in too much only costs time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.slide import Photometric

_DENSITY_LIMITS = (0.025, 0.1)  # optical density; the faintest counterstain that we met lies at 0.04
_WHITE = 220 / 255  # a scanner's empty glass is at least this bright, so a field without glass is seen as one
_BITS = (8, 10, 12, 14, 16)  # that cameras have, whatever type their pixels are stored in
_BLACK_SHARE = 0.06  # of the glass: padding and black ink, no stain is as dark in all channels
_FAINT_SHARE = 0.02  # of a dark image's range
_CENTRAL_BACKGROUND = 0.3  # a background in the middle of the range is no background
_DIM_CHANNEL = 0.25  # of the brightest channel's range: a dimmer one is not stretched further, it may be noise alone
_MODE_SHARE = 0.02  # of the pixels that a background has
_SPECK_SHARE, _HOLE_SHARE, _WHOLE_SHARE = 0.0003, 0.02, 0.95


def tissue_mask(thumbnail: NDArray[np.generic], photometric: Photometric) -> NDArray[np.bool_]:
    """Return where a thumbnail shows tissue, smooth and slightly too large.

    Brightfield: optical density against the glass, in the channel that absorbs most. Dark: signal above the background
    level, in the channel that shines most. A field without background, such as phase contrast, is tissue everywhere.

    Parameters
    ----------
    thumbnail : (C, Y, X) array
        The whole slide, some hundreds of pixels a side or more; any real dtype.
    photometric : {"brightfield", "dark"}
        Whether empty glass is bright or dark.

    Returns
    -------
    (Y, X) bool
        True on tissue; all False if the image is blank.
    """
    pixels = np.nan_to_num(thumbnail.astype(np.float32))
    side = max(pixels.shape[1:])
    if pixels.max() - pixels.min() <= 0:
        return np.zeros(pixels.shape[1:], dtype=bool)
    if photometric == "brightfield":
        return _tidied(_absorbing(pixels, side / 400, _white(thumbnail)), side / 100)
    return _tidied(_shining(pixels, side / 200), side / 40)


def _white(thumbnail: NDArray[np.generic]) -> float:
    """Return how bright empty glass is at least; 0 where the largest value that there can be is not known."""
    if thumbnail.dtype.kind != "u":
        return 0.0
    brightest = int(thumbnail.max())
    return next((_WHITE * (2**bits - 1) for bits in _BITS if brightest < 2**bits), 0.0)


def _absorbing(pixels: NDArray[np.float32], sigma: float, white: float) -> NDArray[np.bool_]:
    smooth = np.stack([_blurred(channel, sigma) for channel in pixels])
    glass = np.maximum(np.percentile(smooth, 99, axis=(1, 2), keepdims=True), white)
    offset = 0.01 * glass
    transmitted = (np.maximum(smooth, 0) + offset) / (glass + offset)
    density = np.maximum(-np.log10(transmitted), 0).max(axis=0)
    if np.ptp(density) <= 0:  # nothing is darker than glass
        return np.zeros(density.shape, dtype=bool)
    threshold = np.clip(_otsu(density) / 2, *_DENSITY_LIMITS)
    ink_or_padding = (smooth < _BLACK_SHARE * glass).all(axis=0)
    return np.asarray((density > threshold) & ~ink_or_padding)


def _shining(pixels: NDArray[np.float32], sigma: float) -> NDArray[np.bool_]:
    low, high = np.percentile(pixels, (0.5, 99.5), axis=(1, 2), keepdims=True)
    spread = np.maximum(high - low, _DIM_CHANNEL * (high - low).max())
    if spread.max() <= 0:  # all signal is in fewer than one pixel in two hundred
        low, spread = pixels.min(axis=(1, 2), keepdims=True), np.ptp(pixels)
    signal = np.clip((pixels - low) / spread, 0, 1).max(axis=0)
    smooth = _blurred(signal, sigma)
    level = _lowest_mode(smooth)
    if level > _CENTRAL_BACKGROUND:
        return np.ones(signal.shape, dtype=bool)
    noise = 1.4826 * float(np.median(level - smooth[smooth <= level]))
    return np.asarray(smooth > level + max(4 * noise, _FAINT_SHARE))


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma, 0.5)), dtype=np.float32)


def _lowest_mode(signal: NDArray[np.float32]) -> float:
    """Return the lowest value in 0..1 around which a fair share gathers: the background, however little there is."""
    counts, edges = np.histogram(signal, bins=200, range=(0.0, 1.0))
    near = np.convolve(counts, np.ones(3), mode="same")
    peaks = (near == ndimage.maximum_filter1d(near, 7)) & (near >= _MODE_SHARE * signal.size)
    lowest = int(np.argmax(peaks)) if peaks.any() else int(np.argmax(near))
    inside = signal[(signal >= edges[max(lowest - 1, 0)]) & (signal <= edges[min(lowest + 2, 200)])]
    return float(np.median(inside))


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold between the two classes of least variance (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(centres[int(np.nanargmax(between))])


def _tidied(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    closed = cv2.morphologyEx(_padded(mask, radius), cv2.MORPH_CLOSE, _disc(radius))
    margin = _margin(radius)
    inner = closed[margin:-margin, margin:-margin]
    filled = ~_without_small(~_without_small(inner > 0, _SPECK_SHARE), _HOLE_SHARE)
    if filled.mean() > _WHOLE_SHARE:
        return np.ones_like(filled)
    return np.asarray(cv2.dilate(filled.astype(np.uint8), _disc(max(radius / 4, 1))) > 0)


def _padded(mask: NDArray[np.bool_], radius: float) -> NDArray[np.uint8]:
    """Return the mask with replicated borders, which closing would else eat."""
    margin = _margin(radius)
    return np.pad(mask.astype(np.uint8), margin, mode="edge")


def _margin(radius: float) -> int:
    return round(radius) + 1


def _disc(radius: float) -> NDArray[np.uint8]:
    side = 2 * max(round(radius), 1) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), dtype=np.uint8)


def _without_small(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return the mask without connected pieces that cover less than a share of the image."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= share * mask.size
    keep[0] = False
    return np.asarray(keep[labels])
