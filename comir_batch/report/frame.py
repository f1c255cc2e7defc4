"""Where the axes and the legend of a chart lie."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.report.axes import Axis  # noqa: TC001  dataclass fields keep their types readable at run time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 440, 300
_LEFT, _RIGHT, _BOTTOM, _LEGEND_ROW = 58, 14, 46, 19
_LETTER, _WIDE_LETTER = 6.9, 11.5  # widths of letters of the legend, on average
_LONGEST_NAME = 46


class Key(NamedTuple):
    """A name of the legend: its place, and the number of its series."""

    x: float
    y: float
    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the axes and the legend lie, in the drawing's pixels."""

    across: Axis
    up: Axis
    keys: tuple[Key, ...]
    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def around(cls, across: Axis, up: Axis, names: Sequence[str]) -> Frame:
        """Return the frame that leaves room for a legend of the names."""
        keys = tuple(_legend(names))
        top = (keys[-1].y if keys else 0) + _LEGEND_ROW
        return cls(across, up, keys, _LEFT, WIDTH - _RIGHT, top, HEIGHT - _BOTTOM)

    def squared(self) -> Frame:
        """Widen one of the axes until both have one scale."""
        width, height = self.right - self.left, self.bottom - self.top
        scale = max((self.across.high - self.across.low) / width, (self.up.high - self.up.low) / height)
        return replace(self, across=self.across.widened(scale * width), up=self.up.widened(scale * height))

    def x(self, value: float) -> float:
        """Return the place of a value of the horizontal axis; NaN for none."""
        return self.left + self.across.share(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the place of a value of the vertical axis; NaN for none."""
        return self.bottom - self.up.share(value) * (self.bottom - self.top)


def _legend(names: Sequence[str]) -> Iterator[Key]:
    """Place the names in rows; the only one of a chart goes without."""
    x, y = float(_LEFT), 12.0
    for index, name in enumerate(names if len(names) > 1 else ()):
        short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
        wide = sum(letter in "mwMW" for letter in short)
        width = 38 + _LETTER * (len(short) - wide) + _WIDE_LETTER * wide
        if x > _LEFT and x + width > WIDTH:
            x, y = float(_LEFT), y + _LEGEND_ROW
        yield Key(x, y, short, index)
        x += width
