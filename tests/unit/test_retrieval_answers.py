"""Answers as rows and pages: each as it comes, and one without a place, too."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine
from comir_batch.retrieval.answers import COLUMNS, Answer, write_answers
from comir_batch.retrieval.find import Match


def answered(name, *slides):
    matches = tuple(Match(SimpleNamespace(name=slide), Affine.identity(), 9.0, verified=True) for slide in slides)
    return Answer(name, Grid(64, 64, 1.0, 1.0), np.zeros((3, 8, 8), np.uint8), matches, 2.0, "all")


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_in_the_file_before_the_next_answer_is_asked_for(tmp_path):
    path, seen = tmp_path / "new" / "found.csv", []

    def answers():
        for name in ("first", "second"):
            yield answered(name, "a", "b")
            seen.append([row["query"] for row in read(path)])

    rows = write_answers(answers(), path, None, ())
    assert seen == [["first"] * 2, ["first"] * 2 + ["second"] * 2]
    assert [tuple(row.values()) for row in read(path)] == rows


def test_an_image_that_is_found_nowhere_has_a_row_without_a_slide(tmp_path):
    table, page = tmp_path / "found.csv", tmp_path / "found.html"
    write_answers(iter([answered("lost")]), table, page, ("comir-batch", "query"))
    (row,) = read(table)
    assert row == dict.fromkeys(COLUMNS, "") | {"query": "lost", "looked_up": "all"}
    assert "lost" in page.read_text(encoding="utf-8")
