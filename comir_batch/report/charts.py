"""Charts as inline SVG: curves, points and distributions, drawn without a script and readable without colour.

A chart takes the text colour of what it stands in, so that it suits light and dark pages and a file of its own. Series
have the colours of Okabe and Ito (2008), which colour-blind people tell apart, and differ in dashes or marks besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from comir_batch.report.axes import Axis
from comir_batch.report.frame import HEIGHT, WIDTH, Frame
from comir_batch.report.pages import render
from comir_batch.report.words import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
_MARKS = (
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0-6.8 0z",
    "M-3-3h6v6h-6z",
    "M0-4l4 7h-8z",
    "M0-4.4l4.4 4.4-4.4 4.4-4.4-4.4z",
)
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One curve, or one kind of points.

    Attributes
    ----------
    name : str
        For the legend; untrusted text.
    x, y : (N,) numbers
        What is not finite leaves a gap.
    low, high : (N,) numbers, optional
        Limits of a band about a curve.
    """

    name: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart.

    Attributes
    ----------
    title : str
        What it shows.
    text : str
        The same in words, for who cannot see it.
    svg : Markup
        The drawing, names escaped; also a file of its own.
    """

    title: str
    text: str
    svg: Markup


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    mark: tuple[float, str] | None = None,
) -> Chart:
    """Draw curves; one of more than 400 points is thinned to the means of runs of points.

    Parameters
    ----------
    title : str
        What the chart shows.
    series : sequence of Series
        The curves.
    x_label, y_label : str
        Quantity and unit of the axes; one that ends in ``(°)`` ticks at shares of a turn.
    log_y : bool
        Whether heights follow the logarithm; what is not positive leaves a gap.
    y_range : (float, float), optional
        Least extent of the vertical axis; it grows to what lies beyond.
    mark : (float, str), optional
        Place on the horizontal axis of a vertical line, and its name.
    """
    thinned = [_thinned(each) for each in series]
    x = Axis.over([*(each.x for each in thinned), *([[mark[0]]] if mark else [])], x_label, tight=True)
    heights = [part for each in thinned for part in (each.y, each.low, each.high) if part is not None]
    y = Axis.over([*heights, y_range or ()], y_label, log=log_y)
    frame = Frame.around(x, y, [each.name for each in thinned])
    shapes = [shape for index, each in enumerate(thinned) for shape in _curve(frame, each, index)]
    text = "; ".join(_course(each) for each in thinned)
    return _drawn(title, text, frame, shapes, mark=(frame.x(mark[0]), mark[1]) if mark else None)


def scatter(
    title: str, series: Sequence[Series], x_label: str, y_label: str, *, links: bool = False, equal: bool = False
) -> Chart:
    """Draw points.

    Parameters
    ----------
    title, series, x_label, y_label
        As of `lines`.
    links : bool
        Whether the points of the first two series that have one index are joined.
    equal : bool
        Whether both axes have one scale, as a map has.
    """
    x, y = Axis.over([each.x for each in series], x_label), Axis.over([each.y for each in series], y_label)
    frame = Frame.around(x, y, [each.name for each in series])
    if equal:
        frame = frame.squared()
    joined = zip(*(_points(each) for each in series[:2]), strict=True) if links else ()
    shapes = [_Shape(_path(frame, np.array(ends)), "currentColor", width=0.8, faint=True) for ends in joined]
    marks = [
        _Mark(round(frame.x(px), 1), round(frame.y(py), 1), _MARKS[index % len(_MARKS)], _colour(index))
        for index, each in enumerate(series)
        for px, py in _points(each)
        if np.isfinite(px + py)
    ]
    text = "; ".join(f"{each.name}: {len(_points(each))} points" for each in series)
    return _drawn(title, text, frame, shapes, marks=marks)


def histogram(title: str, groups: Mapping[str, ArrayLike], x_label: str, *, bins: int = 30) -> Chart:
    """Draw how the values of groups are distributed: the share of each group's values that lie in each bin.

    Parameters
    ----------
    title, x_label
        As of `lines`.
    groups : mapping
        Values by name; what is not finite is left out.
    bins : int
        Of equal width, the same for all groups.
    """
    values = {name: _finite(group) for name, group in groups.items()}
    x = Axis.over(list(values.values()), x_label)
    edges = np.linspace(x.low, x.high, bins + 1)
    shares = [np.histogram(group, edges)[0] / max(len(group), 1) * 100 for group in values.values()]
    y = Axis.over([[0.0], *(1.05 * share for share in shares)], "share (%)", tight=True)
    frame = Frame.around(x, y, list(values))
    shapes = [shape for index, share in enumerate(shares) for shape in _steps(frame, edges, share, index)]
    text = "; ".join(f"{name}: {_spread(group)}" for name, group in values.items())
    return _drawn(title, text, frame, shapes)


class _Shape(NamedTuple):
    path: str
    colour: str
    dash: str = ""
    width: float = 1.8
    faint: bool = False
    filled: bool = False


class _Mark(NamedTuple):
    x: float
    y: float
    path: str
    colour: str


def _drawn(
    title: str,
    text: str,
    frame: Frame,
    shapes: Sequence[_Shape],
    marks: Sequence[_Mark] = (),
    mark: tuple[float, str] | None = None,
) -> Chart:
    """Return the chart that the template draws."""
    shapes = [shape for shape in shapes if shape.path]
    words = f"{title}. {frame.up.label} over {frame.across.label}. {text}"
    svg = render(
        "chart.svg.j2",
        title=title, text=words, frame=frame, shapes=shapes, marks=marks, mark=mark, width=WIDTH, height=HEIGHT,
        strokes=[(_colour(key.number), _dash(key.number)) for key in frame.keys], symbols=_MARKS,
    )  # fmt: skip
    return Chart(title, words, Markup(svg))  # noqa: S704  the template escapes


def _curve(frame: Frame, series: Series, index: int) -> Iterator[_Shape]:
    if series.low is not None and series.high is not None:
        low, high = (np.column_stack([np.asarray(series.x), side]) for side in (series.low, series.high))
        outline = np.vstack([low, high[::-1]])
        yield _Shape(_path(frame, outline[np.isfinite(outline).all(axis=1)]), _colour(index), filled=True)
    yield _Shape(_path(frame, _points(series)), _colour(index), _dash(index))


def _steps(frame: Frame, edges: Vector, shares: Vector, index: int) -> Iterator[_Shape]:
    """Draw the outline of a histogram and fill it."""
    outline = np.column_stack([np.repeat(edges, 2), np.concatenate([[0], np.repeat(shares, 2), [0]])])
    path = _path(frame, outline)
    yield _Shape(path, _colour(index), filled=True)
    yield _Shape(path, _colour(index), _dash(index))


def _path(frame: Frame, points: Vector) -> str:
    """Return the path through ``(N, 2)`` points that starts anew after a gap; a point by itself is a dot."""
    parts: list[str] = []
    pen = "M"
    for x, y in points:
        if not np.isfinite(frame.x(x) + frame.y(y)):
            pen = "M"
            continue
        parts.append(f"{pen}{frame.x(x):.1f} {frame.y(y):.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return "".join(parts)


def _points(series: Series) -> Vector:
    return np.column_stack([np.asarray(series.x, dtype=np.float64), np.asarray(series.y, dtype=np.float64)])


def _thinned(series: Series) -> Series:
    columns = (series.x, series.y, series.low, series.high)
    x, y, low, high = (None if part is None else _means(np.asarray(part, dtype=np.float64)) for part in columns)
    return Series(series.name, [] if x is None else x, [] if y is None else y, low, high)


def _means(values: Vector) -> Vector:
    """Return the means of runs of values, no more than ``_MOST_POINTS``."""
    run = -(-len(values) // _MOST_POINTS)
    return values if run < 2 else np.array([values[start : start + run].mean() for start in range(0, len(values), run)])


def _course(series: Series) -> str:
    """Say in words how a curve runs."""
    points = _points(series)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return f"{series.name}: no values"
    first, last, lowest, highest = points[0], points[-1], points[points[:, 1].argmin()], points[points[:, 1].argmax()]
    ends = f"{_said(first)} to {_said(last)}"
    return f"{series.name}: from {ends}, lowest {_said(lowest)}, highest {_said(highest)}"


def _said(point: Vector) -> str:
    return f"{number(float(point[1]), 3)} at {number(float(point[0]), 4)}"


def _spread(values: Vector) -> str:
    if not len(values):
        return "no values"
    low, middle, high = (number(float(value), 3) for value in np.percentile(values, (5, 50, 95)))
    return f"{len(values)} values, median {middle}, nine in ten from {low} to {high}"


def _finite(values: ArrayLike) -> Vector:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _dash(index: int) -> str:
    """Return another dash for each series of one colour."""
    return _DASHES[(index + index // len(COLOURS)) % len(_DASHES)]
