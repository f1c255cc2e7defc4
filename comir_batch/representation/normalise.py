"""From a slide's pixels to a network's input; the intensity ranges belong to the slide, never to a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import ModelError, TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.card import Input


class Range(NamedTuple):
    """Intensities of one network channel that become 0 and 1, in the slide's own units."""

    low: float
    high: float


def intensity_range(thumbnail: NDArray[np.generic], mask: NDArray[np.bool_], card: Input) -> tuple[Range, ...]:
    """Return the range of each network channel: measured on a slide's tissue, or the full scale, as the card says.

    Parameters
    ----------
    thumbnail : (C, Y, X)
        The slide at a coarse level, in its own dtype.
    mask : (Y, X) bool
        Tissue.
    card : Input
        Which percentiles, or which full scale.

    Raises
    ------
    TaskError
        If percentiles are asked for and there is no tissue, or no contrast in it.
    """
    reduced = _reduced(thumbnail, card)
    if card.scaling == "full":
        return (Range(0.0, card.full or _largest(thumbnail.dtype)),) * len(reduced)
    if not mask.any():
        raise TaskError("the slide has no tissue to take its intensity range from; check the image, or give a mask")
    tissue = reduced[:, mask].astype(np.float64)
    lows, highs = np.percentile(tissue, [card.low, card.high], axis=1)
    if (highs <= lows).any():
        channel = int(np.argmax(highs <= lows))
        raise TaskError(
            f"channel {channel} has no contrast in the tissue: percentiles {card.low:g} and {card.high:g} are both "
            f"{lows[channel]:g}; choose another channel, or give a mask of the tissue"
        )
    return tuple(Range(float(low), float(high)) for low, high in zip(lows, highs, strict=True))


def to_input(pixels: NDArray[np.generic], card: Input, ranges: Sequence[Range]) -> NDArray[np.float32]:
    """Reduce, scale to the ranges, clip to 0..1 and, if the card asks for it, take log(1 + x).

    Pixels that are not finite become 0: a network would spread them over all that it sees.

    Parameters
    ----------
    pixels : (C, Y, X)
        Any part of the slide.
    card : Input
        How.
    ranges : sequence of Range
        Of the whole slide, one a network channel.

    Returns
    -------
    (C', Y, X) float32
        One channel if the card reduces, else all.

    Raises
    ------
    ModelError
        If there are not as many ranges as channels.
    """
    reduced = _reduced(pixels, card)
    if len(ranges) != len(reduced):
        raise ModelError(f"{len(reduced)} channels but {len(ranges)} intensity ranges; choose a channel of the slide")
    bounds = np.asarray(ranges, dtype=np.float32)[:, :, None, None]
    scaled = (reduced.astype(np.float32) - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
    np.nan_to_num(scaled, copy=False, posinf=0.0, neginf=0.0)
    np.clip(scaled, 0.0, 1.0, out=scaled)
    return np.log1p(scaled, out=scaled) if card.log else scaled


def _largest(dtype: np.dtype[np.generic]) -> float:
    """Return what becomes 1: the largest integer of the type, as scikit-image's ``img_as_float`` has it, or 1."""
    return float(np.iinfo(dtype.str).max) if np.issubdtype(dtype, np.integer) else 1.0


def _reduced(pixels: NDArray[np.generic], card: Input) -> NDArray[np.generic]:
    match card.reduction:
        case "max":
            return np.asarray(pixels.max(axis=0, keepdims=True))
        case "mean":
            return np.asarray(pixels.mean(axis=0, keepdims=True, dtype=np.float32))
        case _:
            return pixels
