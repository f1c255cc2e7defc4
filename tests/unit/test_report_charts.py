"""Charts are valid XML, their ticks are few and round, and names from outside stay text."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from comir_batch.report.axes import Axis
from comir_batch.report.charts import COLOURS, Series, histogram, lines, scatter
from comir_batch.report.frame import HEIGHT, WIDTH

EVIL = "<script>alert(1)</script>\"'&"
NAN = float("nan")
SVG = "{http://www.w3.org/2000/svg}"


def parsed(chart):
    return ET.fromstring(chart.svg)  # noqa: S314  our own drawing


def texts(chart):
    return [element.text for element in parsed(chart).iter(f"{SVG}text")]


def curves(chart):
    """Return the paths drawn in a series' colour: its curve, not its key in the legend."""
    found = [path.attrib for path in parsed(chart).iter(f"{SVG}path") if path.get("stroke") in COLOURS]
    return [path["d"] for path in found if not re.fullmatch(r"M[\d.]+ [\d.]+h24", path["d"])]


def places(path):
    return np.array([[float(x), float(y)] for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)])


@pytest.mark.parametrize(
    ("axis", "labels"),
    [
        (Axis("x", 0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (Axis("x", -0.72, 1.03), ["-0.5", "0", "0.5", "1"]),
        (Axis("steps", 3, 2996), ["500", "1,000", "1,500", "2,000", "2,500"]),
        (Axis("angle (°)", 0, 360), ["0", "90", "180", "270", "360"]),
        (Axis("angle (°)", -30, 30), ["-30", "-20", "-10", "0", "10", "20", "30"]),
        (Axis("loss", 1e-12, 1.0, log=True), ["10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]),
        (Axis("loss", 0.6, 4.0, log=True), ["1", "2", "3", "4"]),
        (Axis("x", 1e-5, 3e-5), ["1.0e-05", "1.5e-05", "2.0e-05", "2.5e-05", "3.0e-05"]),
    ],
)
def test_ticks_are_few_and_round(axis, labels):
    assert [label.replace("\N{MINUS SIGN}", "-") for _, label in axis.ticks] == labels


def test_ticks_lie_within_their_axis_whatever_it_is():
    rng = np.random.default_rng(1)
    for low, length in zip(rng.normal(0, 100, 300), 10 ** rng.uniform(-4, 6, 300), strict=True):
        axis = Axis("x", low, low + length)
        assert 2 <= len(axis.ticks) <= 7
        assert all(-1e-6 <= axis.share(value) <= 1 + 1e-6 for value, _ in axis.ticks)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [NAN], [0.0], [5.0], [-2.0, -2.0], [NAN, 3.0, np.inf]])
def test_an_axis_of_little_or_nothing_has_a_length(values, log):
    axis = Axis.over([values], "x", log=log)
    assert axis.high > axis.low
    assert axis.ticks


def test_a_curve_runs_where_its_values_are():
    chart = lines("t", [Series("a", [0, 1, 2], [0, 10, 5])], "x", "y")
    (path,) = curves(chart)
    x, y = places(path).T
    assert x == pytest.approx([x[0], (x[0] + x[2]) / 2, x[2]], abs=0.1)
    assert y[1] < y[2] < y[0]
    assert y[2] == pytest.approx((y[0] + y[1]) / 2, abs=0.1)
    assert 0 < x.min() < x.max() <= WIDTH
    assert 0 < y.min() < y.max() <= HEIGHT


def test_values_that_are_missing_leave_a_gap():
    (path,) = curves(lines("t", [Series("a", [0, 1, 2, 3, 4], [1, 2, NAN, 2, 1])], "x", "y"))
    assert path.count("M") == 2
    assert path.count("L") == 2
    (path,) = curves(lines("t", [Series("a", [0, 1, 2], [1, 0, 2])], "x", "y", log_y=True))
    assert path.count("M") == 2


def test_equal_ratios_are_equal_heights_on_a_logarithmic_axis():
    (path,) = curves(lines("t", [Series("a", [0, 1, 2], [1e-4, 1e-2, 1])], "x", "y", log_y=True))
    low, middle, high = places(path)[:, 1]
    assert middle == pytest.approx((low + high) / 2, abs=0.1)


def test_a_long_curve_is_thinned_and_keeps_its_course():
    steps = np.arange(10_000)
    chart = lines("t", [Series("a", steps, steps / 100)], "x", "y")
    (path,) = curves(chart)
    assert 200 < len(places(path)) <= 400
    assert len(chart.svg) < 12_000


def test_the_axis_holds_the_least_range_and_what_lies_beyond_it():
    labels = texts(lines("t", [Series("a", [0, 1], [0.4, 1.8])], "x", "y", y_range=(0, 1)))
    assert {"0", "1.5"} <= set(labels)


def test_a_band_is_drawn_about_its_curve():
    band = Series("a", [0, 1, 2], [1, 1, 1], [0, 0.5, NAN], [2, 1.5, 2])
    (area,) = [path for path in parsed(lines("t", [band], "x", "y")).iter(f"{SVG}path") if path.get("fill") in COLOURS]
    assert len(places(area.get("d"))) == 5


@pytest.mark.parametrize(("at", "anchor"), [(1, "start"), (9, "end")])
def test_the_name_of_a_marked_place_stays_inside(at, anchor):
    chart = lines("t", [Series("a", [0, 10], [0, 1])], "step", "y", mark=(at, "best model"))
    (name,) = [text for text in parsed(chart).iter(f"{SVG}text") if text.text == "best model"]
    assert name.get("text-anchor") == anchor


def test_partners_are_joined_and_a_map_has_one_scale():
    first, second = Series("dapi", [0, 10], [0, 1]), Series("tritc", [1, 9], [0, 1])
    chart = scatter("t", [first, second], "d1", "d2", links=True, equal=True)
    joins = [path for path in parsed(chart).iter(f"{SVG}path") if path.get("stroke-opacity") == ".55"]
    assert len(joins) == 2
    marks = [re.search(r"\((.*?) (.*?)\)", path.get("transform")) for path in parsed(chart) if path.get("transform")]
    points = np.array([[float(mark[1]), float(mark[2])] for mark in marks])[:4]
    assert points[1, 0] - points[0, 0] == pytest.approx(10 * (points[0, 1] - points[1, 1]), abs=1)


def test_partners_must_be_as_many():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        scatter("t", [Series("a", [0, 1], [0, 1]), Series("b", [0], [0])], "x", "y", links=True)


def test_a_histogram_shows_shares_of_each_group():
    chart = histogram("t", {"true": [0.9, 0.9, 0.8, NAN], "wrong": np.zeros(500)}, "correlation")
    assert "true: 3 values, median 0.9" in chart.text
    assert "100" in texts(chart)
    assert "80" in texts(chart)


@pytest.mark.parametrize(
    "chart",
    [
        lines(EVIL, [Series(EVIL, [0, 1], [0, 1]), Series("b", [0], [1])], EVIL, EVIL, mark=(0, EVIL)),
        scatter(EVIL, [Series(EVIL, [0], [0]), Series("b", [0], [1])], EVIL, EVIL),
        histogram(EVIL, {EVIL: [0, 1], "b": [2]}, EVIL),
        lines("nothing", [], "x", "y"),
        lines("nothing", [Series("a", [], [])], "x", "y"),
        histogram("nothing", {"a": []}, "x"),
    ],
    ids=["lines", "scatter", "histogram", "no series", "no points", "no values"],
)
def test_names_from_outside_stay_text_and_nothing_to_draw_is_drawn(chart):
    read = parsed(chart)
    assert {element.tag.removeprefix(SVG) for element in read.iter()} <= {"svg", "title", "g", "path", "text"}
    assert read.get("aria-label") == chart.text
    assert read.find(f"{SVG}title").text == chart.title
    if chart.title == "nothing":
        assert "no values" in chart.svg or "no values" in chart.text
    else:
        assert EVIL in texts(chart)


def test_a_legend_that_is_too_long_goes_on_below():
    names = [f"a rather long name of a curve {index}" for index in range(3)] + ["x" * 200]
    keys = [
        element
        for element in parsed(lines("t", [Series(name, [0, 1], [0, 1]) for name in names], "x", "y")).iter(f"{SVG}text")
        if element.text in names or "xxx" in element.text
    ]
    assert len({key.get("y") for key in keys}) == 4
    assert all(float(key.get("x")) + 6 * len(key.text) < WIDTH for key in keys)
    assert keys[-1].text.endswith("…")


def test_ten_series_look_different():
    chart = lines("t", [Series(str(index), [0, 1], [index, 1]) for index in range(10)], "x", "y")
    curves, keys = [], []
    for path in parsed(chart).iter(f"{SVG}path"):
        drawn = path.get("stroke"), path.get("stroke-dasharray", "none")
        (curves if path.get("stroke-linejoin") else keys).append(drawn)
    assert len(set(curves)) == len(curves) == 10
    assert keys[-10:] == curves


def test_series_differ_without_colour():
    chart = lines("t", [Series(str(index), [0, 1], [index, 1]) for index in range(6)], "x", "y")
    styles = {
        path.get("stroke-dasharray", "") for path in parsed(chart).iter(f"{SVG}path") if path.get("stroke-linejoin")
    }
    assert len(styles) == 6
