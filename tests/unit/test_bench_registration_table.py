"""Shares, intervals and medians of the registration benchmark's table."""

import pytest

from comir_batch.bench.fields import conditions
from comir_batch.bench.registration_table import cells, clopper_pearson, markdown, summarise

CONDITIONS = conditions(256)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 100, 0.0, 0.0362),
        (50, 100, 0.3983, 0.6017),
        (98, 100, 0.9296, 0.9976),
        (100, 100, 0.9638, 1.0),
        (3, 10, 0.0667, 0.6525),
    ],
)
def test_intervals_are_those_of_published_tables(hits, count, low, high):
    assert clopper_pearson(hits, count) == pytest.approx((low, high), abs=1e-4)


def row(number, *, raw, sift=None, condition="level-2"):
    return {
        "condition": condition,
        "number": number,
        "unbent_px": 0.0,
        "methods": {"raw": [raw, 2.0 + number], "sift": [sift, 0.5]},
    }


def test_found_means_two_per_cent_of_the_side_and_no_transform_is_not_found():
    rows = [row(0, raw=5.12), row(1, raw=5.13), row(2, raw=0.5, sift=1.0), row(3, raw=None)]
    (group,) = summarise(rows, CONDITIONS)
    raw, sift = group["methods"]["raw"], group["methods"]["sift"]
    assert (raw["n"], raw["found"], raw["error_px"], raw["seconds"]) == (4, 0.5, pytest.approx(2.81), 3.5)
    assert (sift["found"], sift["error_px"]) == (0.25, 1.0)
    assert (raw["low"], raw["high"]) == clopper_pearson(2, 4)


def test_conditions_keep_their_order_and_fields_without_a_place_are_counted_apart():
    rows = [row(0, raw=1.0, condition="level-3"), row(0, raw=9.0, condition="level-1")]
    rows += [{"condition": "level-1", "number": 1, "note": "no place was found"}]
    groups = summarise(rows, CONDITIONS)
    assert [(g["condition"], g["unplaced"], g["methods"]["raw"]["n"]) for g in groups] == [
        ("level-1", 1, 1),
        ("level-3", 0, 1),
    ]
    assert "level 1: turn 0-5°, shift 0-6 px of 256: 1" in markdown(groups, "intro")


def test_the_page_has_three_rows_a_condition_and_a_dash_where_a_method_was_not_asked():
    groups = summarise([row(0, raw=1.0)], CONDITIONS)
    columns, rows = cells(groups)
    assert len(rows) == 3
    assert {len(line) for line in (columns, *rows)} == {7}
    share = dict(zip(columns, rows[0], strict=True))
    assert share["comir-batch without a model"] == "100 (3-100)"
    assert share["comir-batch with the model"] == "-"
    lines = markdown(groups, "intro").splitlines()
    assert sum(line.startswith("| ") for line in lines) == 5


def test_a_method_that_was_measured_on_fewer_fields_says_so():
    rows = [row(number, raw=1.0) for number in range(3)]
    del rows[2]["methods"]["sift"]
    columns, lines = cells(summarise(rows, CONDITIONS))
    share = dict(zip(columns, lines[0], strict=True))
    assert share["condition"].endswith("(n = 3)")
    assert share["comir-batch without a model"] == "100 (29-100)"
    assert share["SIFT on CoMIRs"] == "0 (0-84, n = 2)"
