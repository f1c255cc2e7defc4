"""`index`, `query` and `pair` as a user meets them: crops of one scan found in the other."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from comir_batch.cli import bench_commands, retrieval_commands
from comir_batch.core.geometry import Region
from comir_batch.core.manifest import read_manifest
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_transform
from comir_batch.pipeline.strips import read_reduced
from comir_batch.retrieval.templates import linear

MPP = 0.9127
LEFT, TOP, WIDTH, HEIGHT = 300, 780, 480, 400  # at that pixel size; mostly what the shipped model has not seen
HERE = ("--model", "dapi-tritc", "--executor", "serial", "--device", "cpu")


def invoke(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    retrieval_commands.add_to(app)
    return CliRunner().invoke(app, [*map(str, arguments)])


def reduced(path):
    """Return a scan at four times its pixel size, ``(Y, X, 3)``."""
    with open_slide(SlideSpec(path)) as source:
        grid, pixel = source.info.grid(), source.info.pixel_bytes
        whole = Region(0, 0, grid.width, grid.height)
        return np.moveaxis(read_reduced(source.read, whole, 4, pixel), 0, -1).astype(np.uint8)


def crop(image, middle, side, angle, *, mirrored):
    matrix = linear(angle, mirrored=mirrored)
    offset = np.array(middle) - matrix @ np.full(2, (side - 1) / 2)
    return cv2.warpAffine(
        image, np.column_stack([matrix, offset]), (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )


def aligned(scans, folder):
    """Return a manifest of the two scans, which are aligned."""
    manifest, (dapi, tritc) = folder / "pairs.csv", scans
    manifest.write_text(f"pair_id,fixed,moving,fixed_modality,moving_modality\nndpi,{dapi},{tritc},dapi,tritc\n")
    return manifest


@pytest.fixture(scope="module")
def folder(ndpi_pair, tmp_path_factory):
    """A part of the DAPI scan, another image beside it, and crops of the TRITC scan with a known place."""
    folder = tmp_path_factory.mktemp("retrieval, with ä")
    dapi, tritc = map(reduced, ndpi_pair)
    part = np.s_[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]
    Image.fromarray(dapi[part]).save(folder / "part.png")
    Image.fromarray(dapi[:HEIGHT, :WIDTH]).save(folder / "other.png")
    Image.fromarray(crop(tritc[part], (210, 230), 208, 130, mirrored=True)).save(folder / "crop.png")
    resampled = cv2.resize(
        crop(tritc[part], (210, 230), 208, 130, mirrored=True), (199, 199), interpolation=cv2.INTER_AREA
    )
    Image.fromarray(resampled).save(folder / "resampled.png")
    Image.fromarray(crop(tritc, (600, 600), 208, 40, mirrored=False)).save(folder / "stranger.png")
    head = "slide_id,path,modality,mpp\n"
    (folder / "part.csv").write_text(f"{head}part,part.png,dapi,{MPP}\n")
    (folder / "renamed.csv").write_text(f"{head}again,part.png,dapi,{MPP}\n")
    (folder / "both.csv").write_text(f"{head}part,part.png,dapi,{MPP}\nother,other.png,dapi,{MPP}\n")
    (folder / "crops.csv").write_text(f"{head}crop,crop.png,tritc,{MPP}\nstranger,stranger.png,tritc,{MPP}\n")
    return folder


@pytest.mark.slow
def test_a_crop_is_found_and_placed_and_slides_can_be_added(folder, tmp_path):
    for table in ("part.csv", "both.csv"):
        made = invoke("index", folder / table, *HERE, "--out", tmp_path / "index")
        assert made.exit_code == 0, made.output
    assert "slides: 2 dapi" in made.stdout
    assert "(other)" in made.stderr
    assert "(part): started" not in made.stderr
    for how, looked_up in (("auto", "all"), ("shortlist", "shortlist")):
        told = invoke(
            *("query", tmp_path / "index", folder / "crop.png", "--modality", "tritc", "--mpp", MPP, "--device", "cpu"),
            *("--csv", tmp_path / "found.csv", "--html", tmp_path / "found.html", "--look-up", how),
        )
        assert told.exit_code == 0, told.output
        with (tmp_path / "found.csv").open(encoding="utf-8") as stream:
            first = next(csv.DictReader(stream))
        assert (first["slide_id"], first["mirrored"], first["looked_up"]) == ("part", "yes", looked_up)
        assert float(first["x_um"]) == pytest.approx(210 * MPP, abs=2)
        assert float(first["y_um"]) == pytest.approx(230 * MPP, abs=2)
        assert float(first["angle_deg"]) == pytest.approx(130, abs=1)
        assert float(first["margin"]) > 1.3
    told = invoke(
        *("query", tmp_path / "index", folder / "resampled.png", "--modality", "tritc", "--mpp", MPP * 208 / 199),
        *("--device", "cpu", "--csv", tmp_path / "resampled.csv"),
    )
    with (tmp_path / "resampled.csv").open(encoding="utf-8") as stream:
        again = next(csv.DictReader(stream))
    assert all(float(again[name]) == pytest.approx(float(first[name]), abs=1) for name in ("x_um", "y_um", "angle_deg"))
    assert float(again["score"]) > 0.9 * float(first["score"])
    assert "<img" in (tmp_path / "found.html").read_text(encoding="utf-8")
    for table, *only in (("renamed.csv",), ("part.csv", "--only")):
        made = invoke("index", folder / table, *HERE, "--out", tmp_path / "index", *only)
        assert made.exit_code == 0, made.output
        assert "): started" not in made.stderr
        left = {path.stem for path in (tmp_path / "index" / "cells").iterdir()}
        assert left == ({"part"} if only else {"other", "again"})
    refused = invoke("index", folder / "part.csv", "--model", "rgb-nir", "--out", tmp_path / "index")
    assert refused.exit_code == 3
    assert "not of rgb-nir" in refused.stderr


@pytest.mark.slow
def test_pairs_are_proposed_with_starts_and_a_stranger_has_none(folder, tmp_path):
    out = tmp_path / "manifest.csv"
    told = invoke("pair", folder / "crops.csv", folder / "part.csv", *HERE, "--out", out)
    assert told.exit_code == 0, told.output
    (row,) = read_manifest(out).rows
    assert (row.pair_id, row.fixed_modality, row.moving_modality) == ("crop_part", "tritc", "dapi")
    assert row.fixed_mask.name == "whole.png"
    start = read_transform(row.initial_transform)
    middle = start.map([[103.5 * MPP, 103.5 * MPP]])[0]
    assert np.allclose(middle, (210 * MPP, 230 * MPP), atol=2)
    with (tmp_path / "manifest.pairs.csv").open(encoding="utf-8") as stream:
        said = {row["fixed"]: row["status"] for row in csv.DictReader(stream)}
    assert said == {"crop": "sure", "stranger": "no partner"}


@pytest.mark.slow
def test_the_place_benchmark_finds_fields_in_whole_slides(ndpi_pair, tmp_path):
    pairs, out = aligned(ndpi_pair, tmp_path), tmp_path / "out"
    asked = ["place", "dapi-tritc", str(pairs), "--out", str(out), "--count", "2", "--side", "200"]
    told = CliRunner().invoke(bench_commands.app, asked)
    assert told.exit_code == 0, told.output
    rows = json.loads((out / "place.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["direction"], row["side"]) for row in rows] == [("dapi in tritc", 200), ("tritc in dapi", 200)]
    assert all(right and error_px < 4 for row in rows for right, error_px, _ in row["found"])
    refused = CliRunner().invoke(bench_commands.app, [*asked, "--side", "3000"])
    assert refused.exit_code == 3
    assert "Traceback" not in refused.output


@pytest.mark.slow
def test_the_pairing_benchmark_cuts_two_folders_that_pair_takes(ndpi_pair, tmp_path):
    pairs, out = aligned(ndpi_pair, tmp_path), tmp_path / "out"
    app = CliRunner().invoke(
        bench_commands.app,
        ["pairing", "dapi-tritc", str(pairs), "--out", str(out), "--whole", "--count", "4", "--alone", "1"],
    )
    assert app.exit_code == 0, app.output
    found = json.loads((out / "pairing.json").read_text(encoding="utf-8"))
    said = {name: (fields, right) for name, fields, right in found["rows"]}
    assert said["sure"][0] == said["sure"][1] >= 4
    assert sum(fields for fields, _ in said.values()) == 10
    assert len(read_manifest(out / "manifest.csv").rows) == sum(said[name][0] for name in ("sure", "ambiguous")) // 2
    assert {len(list((out / side).glob("*.ome.tif"))) for side in ("fixed", "moving")} == {5}
    crowded = CliRunner().invoke(bench_commands.app, ["pairing", "dapi-tritc", str(pairs), "--out", str(out)])
    assert crowded.exit_code == 3
    assert "have room for" in crowded.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("query", "{}/none", "{}/part.png", "--modality", "tritc"), "is not an index"),
        (("index", "{}/none.csv", *HERE, "--out", "{}/i"), "cannot read"),
        (("index", "{}/part.csv", "--model", "nonesuch", "--out", "{}/i"), "there is no model 'nonesuch'"),
        (("index", "{}/part.csv", *HERE, "--out", "{}"), "holds other files"),
        (("pair", "{}/part.csv", "{}/both.csv", *HERE, "--out", "{}/m.csv"), "both tables are of dapi"),
    ],
)
def test_mistakes_are_told_in_a_line(folder, arguments, message):
    result = invoke(*(str(argument).format(folder) for argument in arguments))
    assert result.exit_code == 3, result.output
    assert message in result.stderr
    assert not (folder / "i").exists()
