"""Inspection: every file that a row names is looked at, and each problem has its column and a remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

import comir_batch.models
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ManifestError
from comir_batch.core.manifest import read_manifest
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import write_json
from comir_batch.pipeline.inspect import inspect_manifest
from comir_batch.pipeline.run import inspect_request

SHIPPED = Path(comir_batch.models.__file__).parent
COLUMNS = [
    *("pair_id", "fixed", "moving", "fixed_modality", "moving_modality", "fixed_mpp", "moving_mpp", "model"),
    *("initial_transform", "fixed_mask", "fixed_landmarks", "moving_landmarks", "fixed_channel"),
]
GOOD = {
    "pair_id": "p",
    "fixed": "a.png",
    "moving": "b.png",
    "fixed_modality": "stain",
    "moving_modality": "glow",
    "fixed_mpp": "0.5",
    "moving_mpp": "0.5",
}


@pytest.fixture
def folder(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (300, 320), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "b.png"), image[::-1])
    cv2.imwrite(str(tmp_path / "mask.png"), image // 128)
    write_json(Composite(), tmp_path / "t.json")
    (tmp_path / "five.csv").write_text("x_um,y_um\n" + "1,2\n" * 5)
    (tmp_path / "four.csv").write_text("x_um,y_um\n" + "1,2\n" * 4)
    return tmp_path


def inspect(folder, *rows):
    lines = [",".join(COLUMNS), *(",".join((GOOD | row).get(name, "") for name in COLUMNS) for row in rows)]
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return inspect_manifest(read_manifest(folder / "m.csv"), "")


def test_a_good_row_becomes_a_pair_that_says_what_was_assumed(folder):
    (pair,) = inspect(
        folder, {"fixed_landmarks": "five.csv", "moving_landmarks": "five.csv", "fixed_mask": "mask.png"}
    ).pairs
    assert pair.fixed.info.mpp_x == 0.5
    assert "The pixel size of the fixed slide, 0.5 µm, is the manifest's." in pair.assumed
    assert set(pair.file_digests) == {"fixed_landmarks", "moving_landmarks", "fixed_mask"}
    assert pair.model is None


@pytest.mark.parametrize(
    ("cells", "column", "reason", "remedy"),
    [
        ({"fixed_mpp": ""}, "fixed", "pixel size", "fixed_mpp"),
        ({"fixed": "none.png"}, "fixed", "No such file", "Check the path"),
        ({"moving": "m.csv"}, "moving", "not an image", "Convert"),
        ({"moving": "."}, "moving", "", ""),
        ({"model": "such-a-model"}, "model", "there is no model 'such-a-model'; there are: ", "none"),
        ({"initial_transform": "none.json"}, "initial_transform", "No such file", "Check the path"),
        ({"initial_transform": "five.csv"}, "initial_transform", "five.csv", "Give"),
        ({"fixed_mask": "none.png"}, "fixed_mask", "none.png", ""),
        ({"fixed_mask": "five.csv"}, "fixed_mask", "five.csv", ""),
        ({"fixed_landmarks": "five.csv"}, "moving_landmarks", "5 fixed and 0 moving", "as many"),
        (
            {"fixed_landmarks": "five.csv", "moving_landmarks": "four.csv"},
            *("moving_landmarks", "5 fixed and 4 moving", "as many"),
        ),
        ({"fixed_landmarks": "t.json", "moving_landmarks": "t.json"}, "fixed_landmarks", "t.json", ""),
        ({"fixed_channel": "7"}, "fixed", "7", ""),
    ],
)
def test_each_problem_is_named(folder, cells, column, reason, remedy):
    problems = inspect(folder, cells).problems
    assert problems[0].row == 2
    assert problems[0].column == column
    assert reason in problems[0].reason
    assert remedy in problems[0].remedy
    assert problems[0].remedy
    assert "\n" not in str(problems[0])


def test_both_slides_of_a_row_are_looked_at_and_good_rows_stay(folder):
    found = inspect(folder, {"fixed": "x.png", "moving": "y.png"}, {"pair_id": "q"})
    assert [(problem.row, problem.column) for problem in found.problems] == [(2, "fixed"), (2, "moving")]
    assert [pair.name for pair in found.pairs] == ["q"]


def test_a_slide_with_broken_headers_costs_its_own_row(folder):
    tifffile.imwrite(folder / "c.tif", np.zeros((40, 50), np.uint8), description="<OME><Image></OME>", metadata=None)
    found = inspect(folder, {"fixed": "c.tif"}, {"pair_id": "q"})
    assert [(problem.row, problem.column, problem.remedy) for problem in found.problems] == [
        (2, "fixed", "Export it again")
    ]
    assert [pair.name for pair in found.pairs] == ["q"]


def test_what_no_reader_foresaw_costs_its_own_row(folder, monkeypatch):
    def odd(*of):
        raise KeyError(of)

    monkeypatch.setattr("comir_batch.io.tiff_reader.channel_names", odd)
    tifffile.imwrite(folder / "c.tif", np.zeros((40, 50), np.uint8))
    found = inspect(folder, {"fixed": "c.tif"}, {"pair_id": "q"})
    assert "c.tif" in found.problems[0].reason
    assert [pair.name for pair in found.pairs] == ["q"]


def test_another_file_of_a_slide_is_part_of_its_digest(folder, monkeypatch):
    before = inspect(folder, {}).pairs[0].fixed.digest
    monkeypatch.setattr("comir_batch.io.image_reader.ImageReader.files", (folder / "a.png", folder / "t.json"))
    assert inspect(folder, {}).pairs[0].fixed.digest != before


def test_a_model_s_folder_is_relative_to_the_manifest(folder):
    names = sorted(path.parent.name for path in SHIPPED.glob("*/card.json"))
    if not names:
        pytest.skip("no model is shipped yet")
    shutil.copytree(SHIPPED / names[0], folder / "mine" / names[0])
    found = inspect(folder, {"model": f"mine/{names[0]}"})
    (problem,) = found.problems  # it is found, and does not know these modalities
    assert f"the model {names[0]} knows" in problem.reason


def test_bad_rows_stop_everything_unless_they_are_skipped_and_others_are_left(folder):
    inspect(folder, {"fixed": "x.png"}, {"pair_id": "q"})
    with pytest.raises(ManifestError, match="row 2, column fixed"):
        inspect_request(folder / "m.csv", load_config(None), skip_bad_rows=False)
    assert len(inspect_request(folder / "m.csv", load_config(None), skip_bad_rows=True).pairs) == 1
    inspect(folder, {"fixed": "x.png"})
    with pytest.raises(ManifestError):
        inspect_request(folder / "m.csv", load_config(None), skip_bad_rows=True)
