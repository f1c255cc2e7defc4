"""Numbers, times, memory and names of metrics as a reader sees them."""

from __future__ import annotations

import math

import pytest

from comir_batch.report import words

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, DASH), (math.nan, DASH), ("", DASH), ("no", "no"), (0.0, "0"), (1.00213, "1.002"),
        (123_456.7, "123,457"), (12, "12"), (3e-5, "3.0e-05"), (math.inf, "∞"), (-math.inf, "-∞"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_duration(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("megabytes", "text"), [(0, DASH), (812, "812 MB"), (2310, "2.3 GB")])
def test_memory(megabytes, text):
    assert words.memory(megabytes) == text


@pytest.mark.parametrize(("megabytes", "text"), [(0, DASH), (0.0123, "0.012 MB"), (2.34, "2.3 MB"), (2310, "2.3 GB")])
def test_size(megabytes, text):
    assert words.size(megabytes) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(None, DASH), (0.123, "0.12"), (1.04, "1.0"), (2.36, "2.4"), (123.4, "123")]
)
def test_times(ratio, text):
    assert words.times(ratio) == text


@pytest.mark.parametrize(("value", "key"), [(None, ""), (math.nan, ""), (0.1, "0.1"), ("no", "no"), (0, "0")])
def test_missing_values_have_no_sort_key(value, key):
    assert words.sort_key(value) == key


@pytest.mark.parametrize(
    ("name", "label", "unit"),
    [
        ("some_error_um", "Some error", "µm"),
        ("odd_thing", "Odd thing", ""),
        ("um", "Um", ""),
        ("part_share", "Part share", ""),
    ],
)
def test_an_unknown_metric_is_named_after_itself(name, label, unit):
    assert words.describe(name)[:2] == (label, unit)


@pytest.mark.parametrize(
    ("name", "label", "unit"),
    [("disagreement_um", "Disagreement", "µm"), ("raw_z", "z, raw images", ""), ("comir_odd_um", "Odd, CoMIR", "µm")],
)
def test_a_metric_of_one_view_says_so(name, label, unit):
    text = words.describe(name)
    assert (text.label, text.unit) == (label, unit)
