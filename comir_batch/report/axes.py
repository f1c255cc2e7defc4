"""Axes of charts: limits, and few ticks at round numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.report.words import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

_ROUND = (1.0, 2.0, 5.0, 10.0)
_TURNS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 45.0, 90.0, 180.0)
_MOST_TICKS = 6
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Attributes
    ----------
    label : str
        Quantity and unit.
    low, high : float
        Values at its ends.
    log : bool
        Whether places follow the logarithm.
    """

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[ArrayLike], label: str, *, log: bool = False, tight: bool = False) -> Axis:
        """Return the axis that holds the finite values, with a twentieth to spare at each end unless ``tight``.

        An axis of nothing is 0 to 1; one of a single value has it in its middle. A logarithmic one holds what is
        positive.
        """
        joined = np.concatenate([np.ravel(np.asarray(part, dtype=np.float64)) for part in values] or [np.zeros(0)])
        kept = joined[np.isfinite(joined) & (joined > 0 if log else True)]
        if not kept.size:
            return cls(label, 0.1 if log else 0.0, 1.0, log)
        ends = np.array([kept.min(), kept.max()])
        ends = np.log10(ends) if log else ends
        spare = 0.05 * (ends[1] - ends[0]) or 0.5 * (abs(ends[0]) or 1.0)
        if not tight or ends[0] == ends[1]:
            ends += np.array([-spare, spare])
        low, high = (10.0**ends if log else ends).tolist()
        return cls(label, low, high, log)

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one; NaN where there is no such place."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(value) - low) / (high - low) if value > 0 else math.nan
        return (value - self.low) / (self.high - self.low)

    def widened(self, length: float) -> Axis:
        """Return the axis of that length about the same middle."""
        middle = (self.low + self.high) / 2
        return replace(self, low=middle - length / 2, high=middle + length / 2)

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Values and labels of at most ``_MOST_TICKS`` + 1 round numbers within the axis."""
        return self._powers() if self.log and self.high / self.low > 20 else self._even()

    def _even(self) -> tuple[tuple[float, str], ...]:
        step = self._step()
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        values = [round(index * step, 12) for index in range(first, last + 1)]
        return tuple((value, number(value, 6).replace("-", "\N{MINUS SIGN}")) for value in values)

    def _step(self) -> float:
        least = (self.high - self.low) / _MOST_TICKS
        if self.label.endswith("(°)") and 1 <= least <= _TURNS[-1]:
            return next(step for step in _TURNS if step >= least)
        power = 10.0 ** math.floor(math.log10(least))
        return next(step * power for step in _ROUND if step * power >= least * (1 - 1e-9))

    def _powers(self) -> tuple[tuple[float, str], ...]:
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        every = -(-(last - first) // _MOST_TICKS) or 1
        return tuple((10.0**power, _power(power)) for power in range(first, last + 1, every))


def _power(exponent: int) -> str:
    return number(10.0**exponent) if -3 <= exponent <= 3 else "10" + str(exponent).translate(_POWERS)
