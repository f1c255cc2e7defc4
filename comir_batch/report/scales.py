"""Colour scales of the maps: perceptually even, readable by colour-blind eyes, with limits rounded to whole steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
_DIVERGING = ((16, 70, 140), (110, 165, 215), (245, 245, 242), (240, 165, 95), (160, 65, 10))
FOLDED = (200, 0, 140)
"""RGB of what lies off a scale altogether: determinants that are not positive."""


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Colours between two limits.

    Attributes
    ----------
    low, high : float
        Values of the first and the last colour; values beyond take these colours.
    colours : (256, 3) uint8
        RGB, evenly spaced from low to high (in the logarithm if ``log``).
    unit : str
        Of the values.
    log : bool
        Whether colours follow the logarithm.
    """

    low: float
    high: float
    colours: NDArray[np.uint8]
    unit: str = ""
    log: bool = False

    def paint(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Return ``(Y, X, 3)`` RGB of ``(Y, X)`` values; ``FOLDED`` where a logarithmic scale ends; NaN as low."""
        position = (self._axis(values) - self._axis(self.low)) / (self._axis(self.high) - self._axis(self.low))
        index = np.nan_to_num(np.clip(position, 0, 1) * 255).round().astype(np.intp)
        painted = self.colours[index]
        if self.log:
            painted[values <= 0] = FOLDED
        return painted

    def ticks(self, count: int = 5) -> tuple[float, ...]:
        """Return values at even steps of the colour bar."""
        ends = np.linspace(self._axis(self.low), self._axis(self.high), count)
        return tuple(float(value) for value in (np.exp(ends) if self.log else ends))

    def stops(self, count: int = 17) -> tuple[str, ...]:
        """Return evenly spaced CSS colours, for a gradient."""
        chosen = self.colours[np.linspace(0, 255, count).round().astype(np.intp)]
        return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in chosen)

    def _axis(self, values: NDArray[np.floating] | float) -> NDArray[np.float64]:
        array = np.asarray(values, dtype=np.float64)
        return np.log(np.maximum(array, 1e-9)) if self.log else array


def magnitude(values: NDArray[np.floating], unit: str) -> Scale:
    """Return a scale from zero to a round number that 99.5 % of the values stay below."""
    return Scale(0.0, _round_up(_percentile(values, 99.5)), _sequential(), unit)


def similarity(*arrays: NDArray[np.floating]) -> Scale:
    """Return one scale for several arrays of similarities: from 0 or their least to a round number above them."""
    values = np.concatenate([array.ravel() for array in arrays])
    low = min(0.0, -_round_up(-_percentile(values, 0.5)))
    return Scale(low, _round_up(_percentile(values, 99.5)), _sequential())


def change(values: NDArray[np.floating], unit: str = "") -> Scale:
    """Return a diverging scale, even about zero."""
    limit = _round_up(_percentile(np.abs(values), 99.5))
    return Scale(-limit, limit, _diverging(), unit)


def steps(highest: int) -> Scale:
    """Return a scale of the whole numbers from 0."""
    return Scale(0.0, float(highest), _sequential())


def determinant(values: NDArray[np.floating]) -> Scale:
    """Return a diverging logarithmic scale about 1: half the area is as far from it as twice the area."""
    positive = np.abs(np.log(values[values > 0])) if (values > 0).any() else np.zeros(1)
    ratio = 1 + _round_up(float(np.expm1(max(_percentile(positive, 99.5), np.log(1.05)))))
    return Scale(1 / ratio, ratio, _diverging(), log=True)


def _percentile(values: NDArray[np.floating], share: float) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, share)) if finite.size else 0.0


def _round_up(value: float) -> float:
    """Return the next step times a power of ten; 1 where nothing is positive."""
    if not 0 < value < np.inf:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in _STEPS if step * power >= value * (1 - 1e-9)))


def _sequential() -> NDArray[np.uint8]:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1], dtype=np.uint8)


def _diverging() -> NDArray[np.uint8]:
    at, anchors = np.linspace(0, 255, len(_DIVERGING)), np.array(_DIVERGING, dtype=np.float64)
    channels = [np.interp(np.arange(256), at, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)
