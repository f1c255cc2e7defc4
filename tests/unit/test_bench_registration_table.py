"""Shares, intervals and medians of the registration benchmark's table."""

import pytest

from comir_batch.bench.conditions import conditions
from comir_batch.bench.intervals import at_most, clopper_pearson
from comir_batch.bench.registration_table import cells, markdown, summarise

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


def test_one_sided_bounds_follow_the_rule_of_three():
    assert at_most(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300))
    assert at_most(0, 0) == at_most(4, 4) == 1.0


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
    assert "level 1: turn 0-5°, shift 0-6 px of 256: 1" in markdown(groups, [], "intro")


def test_the_median_and_the_90th_percentile_are_of_all_fields():
    rows = [row(number, raw=float(number)) for number in range(10)]
    rows[9]["methods"]["raw"][0] = None
    ((cell, sift),) = ((group["methods"]["raw"], group["methods"]["sift"]) for group in summarise(rows, CONDITIONS))
    assert (cell["median_px"], cell["p90_px"]) == (4.0, 8.0)
    assert (sift["median_px"], sift["p90_px"]) == (None, None)


def test_the_page_has_a_column_for_each_method_that_was_measured_and_a_dash_where_it_was_not_asked():
    rows = [row(0, raw=1.0), row(0, raw=1.0, condition="mirrored")]
    del rows[1]["methods"]["sift"]
    columns, lines = cells(summarise(rows, CONDITIONS))
    assert columns == ("condition", "", "SIFT on CoMIRs", "comir-batch without a model")
    assert [line[1].split(",")[0] for line in lines[:4]] == ["found", "error where found", "error: median", "CPU s"]
    assert lines[0][2:] == ("0 (0-98)", "100 (3-100)")
    assert lines[4][2:] == ("-", "100 (3-100)")
    page = markdown(summarise(rows, CONDITIONS), [], "intro").splitlines()
    assert sum(line.startswith("| ") for line in page) == 10


def test_what_folds_is_told_where_fields_are_bent():
    bent = {**row(0, raw=1.0, condition="bent"), "unbent_px": 3.0, "evidence": {"raw": {"folding": {"share": 0.002}}}}
    groups = summarise([bent, row(0, raw=1.0)], CONDITIONS)
    lines = {(line[0] or "more", line[1]): line[-1] for line in cells(groups)[1]}
    assert lines["more", "folded, %"] == "0.20"
    assert sum(label == "folded, %" for _, label in lines) == 1


def test_wrong_fields_have_no_errors_and_no_rows():
    blank = {"condition": "blank", "number": 0, "unbent_px": 0.0, "methods": {"raw": [None, 1.0]}}
    (group,) = summarise([blank], CONDITIONS)
    assert group["methods"]["raw"] == {"n": 1, "seconds": 1.0}
    assert cells([group])[1] == []


def test_a_method_that_was_measured_on_fewer_fields_says_so():
    rows = [row(number, raw=1.0) for number in range(3)]
    del rows[2]["methods"]["sift"]
    columns, lines = cells(summarise(rows, CONDITIONS))
    share = dict(zip(columns, lines[0], strict=True))
    assert share["condition"].endswith("(n = 3)")
    assert share["comir-batch without a model"] == "100 (29-100)"
    assert share["SIFT on CoMIRs"] == "0 (0-84, n = 2)"
