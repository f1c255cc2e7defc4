"""results.csv: one row a pair, readable by any program."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

from comir_batch.core.errors import Problem
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.by_hand import Decision
from comir_batch.pipeline.records import JobRecord
from comir_batch.pipeline.results import PairResult, left_out, pair_result, results_table, with_decision

JOBS = [
    JobRecord({"t1": {"seconds": 1.25, "peak_mb": 300}, "t2": {"seconds": 2.0, "peak_mb": 100}}),
    JobRecord({"t3": {"seconds": 0.5, "peak_mb": 200}}),
]


def rows(*results):
    return list(csv.DictReader(io.StringIO(results_table(results))))


def test_a_verdict_is_read_and_costs_are_added_up(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({"verdict": "review", "reasons": ["a", "b"], "metrics": {"raw_z": 5.5, "model": None}}))
    result = pair_result("p", path, JOBS, "")
    assert result == PairResult("p", Verdict.REVIEW, ("a", "b"), {"raw_z": 5.5, "model": None}, 3.75, 300)


def test_an_error_of_this_run_counts_whatever_was_published(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps({"verdict": "accept", "reasons": [], "metrics": {}}))
    assert pair_result("p", path, [], "chunk: truncated").verdict is Verdict.ERROR
    assert pair_result("p", path, [], "chunk: truncated").reasons == ("chunk: truncated",)


def test_before_the_verdict_there_is_none(tmp_path):
    assert pair_result("p", None, [], "").verdict is None
    assert pair_result("p", tmp_path / "none.json", [], "").verdict is None


def test_a_row_that_was_left_out_is_an_error_under_a_name_of_its_own():
    problems = [
        Problem(2, "moving", "no such file", "Correct it"),
        Problem(2, "model", "no such model", "Name another"),
        *(Problem(row, "-", "bad", "Mend it") for row in (3, 4, 6)),
    ]
    results = left_out(problems, {2: "p1", 3: "p2", 4: "", 5: "p2", 6: ""})
    assert [result.pair_id for result in results] == ["p1", "row 3", "row 4", "row 6"]
    assert all(result.verdict is Verdict.ERROR for result in results)
    first, second = results[0].reasons
    assert first == "left out: row 2, column moving: no such file. Correct it."
    assert "no such model" in second


def test_cells_with_commas_quotes_and_line_breaks_survive_and_missing_metrics_are_empty():
    reasons = ('a "quoted", reason', "two\nlines")
    first, second, third = rows(
        PairResult("a", Verdict.ACCEPT, reasons, {"raw_z": 1.5, "model": None}),
        PairResult("b", Verdict.ERROR, ("ä",), {"tre": 0.0}),
        PairResult("c", None),
    )
    assert first["reasons"] == "; ".join(reasons)
    assert (first["raw_z"], first["model"], first["tre"]) == ("1.5", "", "")
    assert (second["verdict"], second["raw_z"], second["tre"]) == ("error", "", "0.0")
    assert third["verdict"] == ""


def test_the_columns_stand_in_order():
    (header, *_) = results_table([PairResult("a", Verdict.ACCEPT, (), {"m2": 1.0, "m1": 2.0})]).splitlines()
    assert header == "pair_id,verdict,reasons,decision,decided_by,note,m2,m1,seconds,peak_mb"


def test_a_decision_put_into_a_table_gives_the_table_that_a_run_would_write():
    decision = Decision(Verdict.REJECT, 'folds, "badly"\nthere', "ana", "2026-01-02 03:04", "0" * 64)
    first = PairResult("a", Verdict.ACCEPT, ("two\nlines",), {"raw_z": 1.5})
    second = PairResult("b", Verdict.REVIEW)
    decided = replace(first, decision=decision)
    table = with_decision(results_table([first, second]), "a", decision)
    assert table == results_table([decided, second])
    assert rows(decided)[0]["note"] == decision.note
    assert (first.final, decided.final) == (Verdict.ACCEPT, Verdict.REJECT)
