"""Verdicts of the registration benchmark: counted by what was found, and judged anew by other thresholds."""

import csv
import json
from dataclasses import replace

import pytest

from comir_batch.bench.conditions import conditions
from comir_batch.bench.intervals import at_most
from comir_batch.bench.registration_report import benchmark_page
from comir_batch.bench.registration_table import markdown, summarise, verdict_cells
from comir_batch.bench.verdicts import Tally, judged, recorded, restored, tallied, verdicts_csv
from comir_batch.core.config import JudgeConfig
from comir_batch.core.verdict import Verdict
from comir_batch.quality.evidence import Evidence
from comir_batch.quality.plausibility import Folding, Shape
from comir_batch.quality.points import InverseError, TileError
from comir_batch.quality.similarity import Similarity
from comir_batch.quality.verdict import judge

CONDITIONS = conditions(256)
CONFIG = JudgeConfig()
SURE = Evidence(
    registered_from="comir",
    shape=Shape(0.99, 1.01, 0.0, mirrored=False, rotation_deg=4.0),
    folding=Folding(0.0, 0.9, 1.1, 0.95, 1.05),
    overlap=0.9,
    raw=Similarity("mi", 12, 0.1, 0.2, 1.0, 9.0, 0.9),
    comir=Similarity("ncc", 12, 0.1, 0.7, 1.0, 30.0, 1.0),
    model="some",
    model_slides=3,
    disagreement_um=1.5,
)
UNSURE = replace(SURE, comir=replace(SURE.comir, z=6.0))
HOPELESS = replace(SURE, raw=replace(SURE.raw, z=0.5), comir=replace(SURE.comir, z=0.3))


def row(number, error, evidence, condition="level-1"):
    record = json.loads(json.dumps(recorded(evidence)))
    return {
        "condition": condition,
        "number": number,
        "unbent_px": 0.0,
        "methods": {"both": [error, 2.0], "sift": [error, 0.1]},
        "evidence": {"both": record},
    }


ROWS = [
    row(0, 1.0, SURE),
    row(1, 2.0, UNSURE),
    row(2, 3.0, HOPELESS),
    row(3, 50.0, SURE),
    row(4, None, None),
    row(0, None, SURE, "neighbour"),
    row(1, None, HOPELESS, "neighbour"),
    row(0, None, UNSURE, "blank"),
]


@pytest.mark.parametrize(
    "evidence",
    [
        replace(
            SURE, tile_error=TileError(12, 9, 0.5, 2.0, 0.6), inverse=InverseError(0.2, 0.5, 0.3), margin_nats=30.5
        ),
        SURE,
        replace(SURE, comir=None, disagreement_um=None, failed=("no samples",), fitted="not at all"),
    ],
)
def test_evidence_survives_the_record_and_gives_the_same_verdict(evidence):
    again = restored(json.loads(json.dumps(recorded(evidence))))
    assert again == evidence
    assert judge(again, CONFIG) == judge(evidence, CONFIG)


def test_a_wrong_one_that_is_accepted_and_a_right_one_that_is_rejected_are_counted():
    level, neighbour, blank, wrong = tallied(judged(ROWS, CONDITIONS, CONFIG), CONDITIONS)
    assert level.methods == {
        "both": Tally(accepted=2, reviewed=1, rejected=1, without=1, found=3, accepted_found=1, rejected_found=1)
    }
    tally = level.methods["both"]
    assert (tally.fields, tally.false_accepts) == (5, 1)
    assert tally.to_json()["false_accepts_most"] == at_most(1, 5)
    assert tally.to_json()["false_rejects_most"] == at_most(1, 3)
    assert neighbour.methods["both"].false_accepts == 1
    assert blank.methods["both"] == Tally(reviewed=1)
    assert (wrong.title, wrong.methods["both"]) == (
        "all wrong and blank ones",
        Tally(accepted=1, reviewed=1, rejected=1),
    )


def test_other_thresholds_judge_what_was_measured_anew():
    lenient, strict = (judged(ROWS, CONDITIONS, JudgeConfig(accept_z=z)) for z in (5.0, 31.0))
    assert [each.judgement and each.judgement.verdict for each in lenient][1] is Verdict.ACCEPT
    assert not any(each.judgement and each.judgement.verdict is Verdict.ACCEPT for each in strict)


def test_rows_of_earlier_versions_have_no_verdicts_but_count_for_the_rest():
    old = [{key: value for key, value in each.items() if key != "evidence"} for each in ROWS[:4]]
    assert judged(old, CONDITIONS, CONFIG) == []
    assert summarise(old, CONDITIONS)[0]["methods"]["both"]["found"] == 0.75


def test_the_table_says_how_many_and_at_most_how_many():
    columns, lines = verdict_cells(tallied(judged(ROWS, CONDITIONS, CONFIG), CONDITIONS))
    first = dict(zip(columns, lines[0], strict=True))
    assert first["false accepts (at most)"] == "1 (65.7%)"
    assert first["false rejects (at most)"] == "1 (86.5%)"
    assert (first["found"], first["of these accepted"], first["no transform"]) == ("3", "33%", "1")
    assert dict(zip(columns, lines[1], strict=True))["false rejects (at most)"] == "-"


def test_every_verdict_stands_in_the_csv_with_its_numbers():
    lines = list(csv.DictReader(verdicts_csv(judged(ROWS, CONDITIONS, CONFIG)).splitlines()))
    assert len(lines) == len(ROWS)
    assert (lines[0]["verdict"], lines[0]["found"], lines[0]["comir_z"]) == ("accept", "1", "30.0")
    assert (lines[4]["verdict"], lines[4]["found"], lines[4]["comir_z"]) == ("", "0", "")
    assert (lines[5]["condition"], lines[5]["error_px"]) == ("neighbour", "")


def test_the_page_shows_curves_by_condition_and_verdicts_by_method():
    groups, tallies = summarise(ROWS, CONDITIONS), tallied(judged(ROWS, CONDITIONS, CONFIG), CONDITIONS)
    page = benchmark_page(groups, ROWS, tallies, "Of a <small> test.", ("bench", "registration"))
    assert "Of a &lt;small&gt; test." in page
    assert "Errors, level-1" in page
    assert "Errors, neighbour" not in page
    assert "both: from 0 at 0 to 60 at 15.36" in page
    assert "wrong: the place beside it, any angle" in page
    assert "1 (65.7%)" in page
    assert "1 (65.7%)" in markdown(groups, tallies, "intro")
