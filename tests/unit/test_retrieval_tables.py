"""Tables of slides, the index's own file, and what is said of pairs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from comir_batch.core.errors import ConfigError, ManifestError, ModelError
from comir_batch.core.geometry import Grid
from comir_batch.core.slide import SlideSpec
from comir_batch.pipeline.representing import RepresentedSlide
from comir_batch.representation.store import find_model
from comir_batch.retrieval.index import Index, IndexedSlide, renamed
from comir_batch.retrieval.margins import SURE
from comir_batch.retrieval.pairing import assign
from comir_batch.retrieval.proposals import Proposal, Status, judged, numbered
from comir_batch.retrieval.tables import read_slides


def test_a_table_names_slides(tmp_path):
    (tmp_path / "t.csv").write_text("slide_id,path,modality,mpp,series\na,x/a.tif,DAPI,0.5,\n\nb,/b.tif,tritc,,2\n")
    first, second = read_slides(tmp_path / "t.csv")
    assert first.spec == SlideSpec(tmp_path / "x/a.tif", 0, "", 0.5)
    assert (first.row, first.modality) == (2, "dapi")
    assert second.spec.series == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("slide_id,path\na,b\n", "column modality: the column is missing"),
        ("slide_id,path,modality,colour\na,b,c,d\n", "column colour: unknown column"),
        ("slide_id;path;modality\na;b;c\n", "is separated by semicolons"),
        ("slide_id,path,modality,path\na,b,c,d\n", "column path: the column stands twice"),
        ("slide_id,path,modality\na,b\n", "has 2 cells, the header 3"),
        ("slide_id,path,modality\na/b,b,c\n", "cannot be the name of a file"),
        ("slide_id,path,modality\na,b,c\nA,b,c\n", "row 3, column slide_id: 'A' stands twice"),
        ("slide_id,path,modality,mpp\na,b,c,-1\n", "column mpp: '-1' is no pixel size"),
        ("slide_id,path,modality,series\na,b,c,x\n", "column series: 'x' is no whole number"),
    ],
)
def test_mistakes_in_a_table_are_problems(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=said.replace("'", ".")):
        read_slides(tmp_path / "t.csv")


@pytest.fixture
def index(tmp_path):
    made = RepresentedSlide(tmp_path / "run/work/c", tmp_path / "run/work/r", Grid(10, 20, 1.5, 1.5, 0.5, 0.5))
    slide = IndexedSlide("a", "dapi", SlideSpec(tmp_path / "a.tif", 1, "0", 0.5), "abc", made, tmp_path / "m.png")
    index = Index(tmp_path, find_model("dapi-tritc"), (slide,))
    index.save()
    return index


def test_an_index_comes_back_as_it_was(index, tmp_path):
    opened = Index.open(tmp_path)
    assert opened.slides == index.slides
    assert opened.model.card == index.model.card


@pytest.mark.usefixtures("index")
def test_another_models_index_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"is of the model dapi-tritc, .* not of rgb-nir"):
        Index.open(tmp_path, find_model("rgb-nir"))


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("change", [{"version": 0}, {"cell": 3}])
def test_an_index_of_another_version_is_refused(tmp_path, change):
    path = tmp_path / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match="make it anew"):
        Index.open(tmp_path)


def test_a_folder_without_an_index_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"is not an index: it has no index\.json"):
        Index.open(tmp_path / "nothing")


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("content", ['{"format": "comir-', "[]", None])
def test_a_damaged_index_is_told_in_a_sentence(tmp_path, content):
    path = tmp_path / "index.json"
    whole = json.loads(path.read_text())
    del whole["slides"][0]["digest"]
    path.write_text(json.dumps(whole) if content is None else content)
    with pytest.raises(ConfigError, match=r"index\.json is damaged; remove .* and run comir-batch index again"):
        Index.open(tmp_path)


@pytest.mark.parametrize("load", [Index.cells, Index.signatures])
def test_what_an_index_lacks_of_a_slide_is_told_in_a_sentence(index, tmp_path, load):
    for cut_off in (False, True):
        if cut_off:
            for name in ("cells/a.npz", "signatures/a.npy"):
                (tmp_path / name).parent.mkdir()
                (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(ConfigError, match=r"has of a, is missing or damaged; .* run comir-batch index again"):
            load(index, index.slides[0])


def test_a_slide_that_is_renamed_leaves_under_its_old_name(index):
    slide = index.slides[0]
    known = {"a": slide, "b": replace(slide, name="b", digest="other")}
    assert renamed(known, {"c": replace(slide, name="c")}) == ["a"]
    assert renamed(known, {"a": slide, "c": replace(slide, name="c")}) == []
    other_channel = replace(slide, name="c", spec=replace(slide.spec, channel="1"))
    assert renamed(known, {"c": other_channel}) == []


def test_the_assignment_takes_the_highest_sum_and_no_zeros():
    rows, columns = assign(np.array([[9.0, 8.0, 0.0], [8.5, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]


@pytest.mark.parametrize(
    ("score", "others", "status"),
    [
        (100, [40, 35, 34, 30, 28], Status.SURE),
        (100, [95, 35, 30, 20, 18], Status.AMBIGUOUS),
        (40, [36, 35, 34, 33, 32], Status.NO_PARTNER),
        (40, [], Status.AMBIGUOUS),
        (100, [100], Status.AMBIGUOUS),
        (100, [40, 35], Status.AMBIGUOUS),
        (3, [-0.5], Status.AMBIGUOUS),
        (3, [-0.5, -0.6, -0.7, -0.8, -0.9], Status.AMBIGUOUS),
    ],
)
def test_what_is_said_of_a_pair(score, others, status):
    said, margin = judged(score, others)
    assert said is status
    assert margin == pytest.approx(score / max(others)) if len(others) > 3 and max(others) > 0 else margin <= SURE


def test_names_tell_where_to_look(index):
    slide = index.slides[0]
    sure = Proposal(slide, replace(slide, name="b"), Status.SURE, 2.0)
    assert sure.name == "a_b"
    assert sure.confidence > 0.99
    assert replace(sure, status=Status.AMBIGUOUS, margin=1.0).name == "a_b-unsure"
    assert replace(sure, margin=1.0).confidence < 0.05


def test_names_that_would_be_the_same_are_numbered(index):
    def pair(fixed, moving, status=Status.SURE):
        return Proposal(*(replace(index.slides[0], name=name) for name in (fixed, moving)), status, 2.0)

    long = "TCGA-" + "x" * 90
    asked = [
        *(pair("s1", "a_b"), pair("S1_A", "b"), pair("s1", "a_b-2")),
        *(pair(f"{long}1", "m1"), pair(f"{long}2", "m2", Status.AMBIGUOUS)),
    ]
    names = [each.name for each in numbered(asked)]
    assert names[:3] == ["s1_a_b", "S1_A_b-2", "s1_a_b-2-2"]
    assert len({name.casefold() for name in names}) == 5
    assert all(len(name) <= 100 for name in names)
    assert names[4].endswith("-unsure")
