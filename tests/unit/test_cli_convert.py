"""`transform convert` writes what other programs read, says how good it is, and refuses in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.io.transform_files import read_transform, write_json
from comir_batch.pipeline.dialects import DIALECTS

TURN = Affine(np.array([[0.0, -1.0], [1.0, 0.0]]), np.array([300.0, 10.0]))
BEND = BSpline(np.full(2, -120.0), np.full(2, 60.0), np.random.default_rng(0).normal(0, 4, (2, 12, 12)))


@pytest.fixture
def folder(tmp_path):
    write_json(Composite((TURN,)), tmp_path / "turn.json")
    write_json(Composite((TURN, BEND)), tmp_path / "bend.json")
    tifffile.imwrite(
        tmp_path / "fixed.ome.tif",
        np.zeros((500, 600), np.uint8),
        metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    return tmp_path


def _convert(folder, *arguments):
    return CliRunner().invoke(app, ["transform", "convert", *(a.format(folder) for a in arguments)])


def test_a_turn_becomes_qupath_s_matrix_by_the_pixel_sizes(folder):
    result = _convert(
        *(folder, "{}/turn.json", "{}/q.json", "--to", "qupath", "--fixed-mpp", "0.5", "--moving-mpp", "0.25")
    )
    assert result.exit_code == 0, result.output
    assert "maps fixed to moving, in pixels with the first centre at 0.5; off by 0 µm" in result.output
    m = json.loads((folder / "q.json").read_text())
    # the first pixel of the fixed image, (0.5, 0.5), lies at (300, 10) µm, the moving image's pixel (1200, 40)
    at = [m["m00"] * 0.5 + m["m01"] * 0.5 + m["m02"], m["m10"] * 0.5 + m["m11"] * 0.5 + m["m12"]]
    assert at == pytest.approx([1200.5, 40.5])


def test_the_other_direction_goes_back(folder):
    assert _convert(folder, "{}/turn.json", "{}/back.tfm", "--to", "itk", "--inverse").exit_code == 0
    there = read_transform(folder / "turn.json").map([[12.0, 34.0]])
    assert read_transform(folder / "back.tfm").map(there) == pytest.approx(np.array([[12.0, 34.0]]))


def test_a_bent_transform_as_an_affine_says_how_far_it_is_off(folder):
    result = _convert(folder, "{}/bend.json", "{}/n.json", "--to", "napari", "--fixed", "{}/fixed.ome.tif")
    assert result.exit_code == 0, result.output
    error = json.loads((folder / "n.json").read_text())["error_um"]
    assert 1 < error["median"] < error["max"] < 20
    assert f"off by {error['median']:.3g} µm in the median, {error['max']:.3g} µm at most" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{}/turn.json", "{}/o.json", "--to", "qpath"), "there is no dialect 'qpath'"),
        (("{}/none.json", "{}/o.json", "--to", "napari"), "No such file"),
        (("{}/fixed.ome.tif", "{}/o.json", "--to", "napari"), "fixed.ome.tif"),
        (("{}/turn.json", "{}/turn.json", "--to", "json"), "is there already"),
        (("{}/turn.json", "{}/o.json", "--to", "warpy"), "pixel size of the fixed slide"),
        (("{}/bend.json", "{}/o.mha", "--to", "mha"), "size of the fixed slide"),
        (("{}/turn.json", "{}/o.mha", "--to", "mha", "--fixed", "{}/no.tif"), "no.tif"),
        (
            ("{}/bend.json", "{}/o.json", "--to", "napari", "--fixed", "{}/fixed.ome.tif", "--tolerance", "0.5"),
            "more than the 0.5 µm asked for",
        ),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(folder, arguments, message):
    before = sorted(folder.iterdir())
    result = _convert(folder, *arguments)
    assert result.exit_code == 3
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(folder.iterdir()) == before


def test_the_dialects_are_listed_with_their_conventions():
    result = CliRunner().invoke(app, ["transform", "dialects"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert set(DIALECTS) <= set(lines)
    assert "fixed to moving" in lines["qupath"]
    assert "0.5" in lines["qupath"]
    assert "moving to fixed" in lines["napari"]
