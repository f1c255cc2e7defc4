"""`transform`, on the two stains of a real section under a known motion: everything lands where the truth says."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import runs
import tifffile
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.geometry import Region
from comir_batch.core.inverse import invert
from comir_batch.core.slide import SlideSpec
from comir_batch.core.transform import Composite
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import write_itk, write_json
from comir_batch.training.ihc import MPP

GREY = ("grey.png", "o.ome.tif", "--mpp", "0.5")


def call(command, *words):
    found = CliRunner().invoke(app, ["transform", command, *map(str, words)])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def done(command, *words):
    found = call(command, *words)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture
def here(tmp_path, truth):
    """A folder with the true transform."""
    write_json(truth, tmp_path / "t.json")
    return tmp_path


def whole(path):
    with open_slide(SlideSpec(path)) as slide:
        grid = slide.info.grid()
        return slide.read(Region(0, 0, grid.width, grid.height)), slide.info


def stain_of(negative):
    """Undo what `runs.make_slides` does to the moving slide after it has moved it."""
    amount = 255 * (1 - ((negative.astype(float) - 40) / 200) ** 2)
    return np.where(negative > 0, np.clip(amount, 0, 255), 0).astype(np.uint8)


def nuclei(stain):
    """Return outlines of nuclei in QuPath's pixels, in which OpenCV's contours run through pixels' centres at 0.5."""
    stain = cv2.GaussianBlur(stain, (0, 0), 2)
    _, mask = cv2.threshold(stain, 0, 255, cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [contour[:, 0].astype(float) + 0.5 for contour in contours if 60 < cv2.contourArea(contour) < 4000]


def cell(number, outline):
    ring = [*outline.tolist(), outline[0].tolist()]
    nucleus = {"type": "Point", "coordinates": outline[0].tolist()}
    return {
        "type": "Feature",
        "id": f"{number}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "nucleusGeometry": nucleus,
        "properties": {"objectType": "cell", "classification": {"name": "Tumor: +", "color": [200, 0, 0]}},
    }


def rings(path):
    return [np.array(feature["geometry"]["coordinates"][0]) for feature in json.loads(path.read_text())["features"]]


def test_annotations_of_the_moving_slide_land_on_the_fixed_one(here, slides, truth):
    """Drawn at the true places of points of the fixed slide, they come back to those points."""
    on_fixed = [outline for outline in nuclei(whole(slides / "fixed.ome.tif")[0][0]) if len(outline) > 20]
    on_moving = [truth.map((outline - 0.5) * MPP) / MPP + 0.5 for outline in on_fixed]
    cells = [cell(k, outline) for k, outline in enumerate(on_moving)]
    (here / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": cells}))
    sides = ["--fixed", slides / "fixed.ome.tif", "--moving", slides / "moving.ome.tif"]
    found = done("geojson", here / "a.geojson", here / "b.geojson", "--inverse", "--transform", here / "t.json", *sides)
    assert f"{len(cells)} features" in found.stdout
    assert len(cells) > 10
    for ring, outline, feature in zip(rings(here / "b.geojson"), on_fixed, cells, strict=True):
        np.testing.assert_allclose(ring, [*outline, outline[0]], atol=0.01)
        assert feature["properties"]["objectType"] == "cell"
    written = json.loads((here / "b.geojson").read_text())["features"]
    assert [feature["properties"] for feature in written] == [feature["properties"] for feature in cells]
    nucleus = np.array([feature["nucleusGeometry"]["coordinates"] for feature in written])
    np.testing.assert_allclose(nucleus, [outline[0] for outline in on_fixed], atol=0.01)


def test_annotations_and_labels_of_the_same_nuclei_meet(here, slides):
    """Outlines through QuPath's pixels and the pixels themselves go different ways to the same places."""
    moving, _ = whole(slides / "moving.ome.tif")
    outlines = nuclei(stain_of(moving[0]))
    drawn = np.zeros(moving.shape[1:], dtype=np.uint16)
    for number, outline in enumerate(outlines, start=1):
        cv2.fillPoly(drawn, [(outline - 0.5).astype(np.int32)], number)
    tifffile.imwrite(here / "labels.tif", drawn, resolution=(1e4 / MPP,) * 2, resolutionunit="CENTIMETER")
    cells = [cell(k, outline) for k, outline in enumerate(outlines, start=1)]
    (here / "a.geojson").write_text(json.dumps(cells))
    onto = ["--transform", here / "t.json", "--onto", slides / "fixed.ome.tif"]
    done("labels", here / "labels.tif", here / "labels.ome.tif", *onto)
    sizes = ["--fixed-mpp", MPP, "--moving-mpp", MPP]
    done("geojson", here / "a.geojson", here / "b.geojson", "--inverse", "--transform", here / "t.json", *sizes)
    labels, info = whole(here / "labels.ome.tif")
    assert info.dtype == "uint16"
    distances = []
    for feature in json.loads((here / "b.geojson").read_text()):
        ring = np.array(feature["geometry"]["coordinates"][0]) - 0.5
        image = np.zeros(labels.shape[1:], dtype=np.uint8)
        cv2.fillPoly(image, [np.rint(ring * 16).astype(np.int32)], 1, shift=4)
        both, one = ((labels[0] == int(feature["id"])) & (image > 0)).sum(), image.sum()
        if one > 100:
            assert both / one > 0.9
            places = [np.argwhere(mask).mean(axis=0) for mask in (labels[0] == int(feature["id"]), image > 0)]
            distances.append(places[1] - places[0])
    assert len(distances) > 10
    np.testing.assert_allclose(np.mean(distances, axis=0), 0, atol=0.1)


def test_labels_stay_labels_in_every_level(here, slides):
    stain, _ = whole(slides / "moving.ome.tif")
    known = np.array([0, 3, 70_000, 2**31 - 2], dtype=np.int32)
    tifffile.imwrite(here / "l.tif", known[stain[0] // 64], resolution=(1e4 / MPP,) * 2, resolutionunit="CENTIMETER")
    onto = ["--transform", here / "t.json", "--onto", slides / "fixed.ome.tif"]
    done("labels", here / "l.tif", here / "l.ome.zarr", *onto)
    with open_slide(SlideSpec(here / "l.ome.zarr")) as slide:
        assert len(slide.info.levels) == 2
        for number, level in enumerate(slide.info.levels):
            pixels = slide.read(Region(0, 0, level.width, level.height, number))
            assert pixels.dtype == np.int32
            assert np.isin(pixels, known).all()
    assert len(np.unique(pixels)) == len(known)


@pytest.mark.parametrize("out", ["a.ome.zarr", "a.ome.tif"])
def test_another_image_of_the_moving_slide_lies_on_the_fixed_one(here, slides, truth, out):
    """In colour though the slide is grey, and reduced to a quarter of its pixels."""
    fixed, _ = whole(slides / "fixed.ome.tif")
    stain, _ = whole(slides / "moving.ome.tif")
    cv2.imwrite(
        str(here / "rgb.png"),
        cv2.merge([cv2.resize(stain_of(stain[0]), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)] * 3),
    )
    write_itk(truth, here / "t.h5")
    onto = ["--transform", here / "t.h5", "--onto", slides / "fixed.ome.tif"]
    done("image", here / "rgb.png", here / out, "--mpp", 4 * MPP, "--reduced-from", MPP, *onto)
    pixels, info = whole(here / out)
    assert info.is_rgb
    assert (info.mpp_x, pixels.shape[1:]) == (pytest.approx(MPP), fixed.shape[1:])
    tissue = runs.TISSUE.grown(-20).slices
    (x, y), _ = cv2.phaseCorrelate(*(cv2.blur(image[0].astype(float), (4, 4))[tissue] for image in (fixed, pixels)))
    assert (x, y) == (pytest.approx(0, abs=0.1), pytest.approx(0, abs=0.1))


def test_an_image_of_the_fixed_slide_lies_on_the_moving_one(here, slides, truth):
    onto = ["--transform", here / "t.json", "--onto", slides / "moving.ome.tif"]
    done("image", slides / "fixed.ome.tif", here / "a.ome.tif", "--inverse", *onto, "--interpolation", "cubic")
    pixels, info = whole(here / "a.ome.tif")
    fixed, _ = whole(slides / "fixed.ome.tif")
    places = runs.tissue_points()
    there = np.rint(info.grid().to_pixels(truth.map(places))).astype(int)
    back = np.rint(invert(truth, there * MPP) / MPP).astype(int)
    values, expected = (image[0, at[:, 1], at[:, 0]].astype(float) for image, at in ((pixels, there), (fixed, back)))
    assert np.corrcoef(values, expected)[0, 1] > 0.98


def test_points_go_there_and_back(here, slides, truth):
    places = runs.tissue_points()
    table = "\n".join(f"{k},{x},{y}" for k, (x, y) in enumerate(places))
    (here / "a.csv").write_text(f"name,x_um,y_um\n{table}\n")
    write_itk(truth, here / "t.tfm")
    pixels = ["--fixed-mpp", MPP, "--moving", slides / "moving.ome.tif", "--to-unit", "px"]
    done("points", here / "a.csv", here / "b.parquet", "--transform", here / "t.tfm", *pixels)
    pixels[-1] = "um"
    done("points", here / "b.parquet", here / "c.csv", "--inverse", "--transform", here / "t.json", *pixels)
    header, *rows = (line.split(",") for line in (here / "c.csv").read_text().splitlines())
    assert header == ["name", "x_um", "y_um"]
    np.testing.assert_allclose([[float(x), float(y)] for _, x, y in rows], places, atol=2e-3)


def folded(folder):
    """Write a transform that folds at the middle of the tissue."""
    from comir_batch.core.transform import BSpline

    coefficients = np.zeros((2, 16, 16))
    coefficients[0, 7, 7] = 90.0
    write_json(Composite((BSpline(np.full(2, -40.0), np.full(2, 20.0), coefficients),)), folder / "fold.json")
    return folder / "fold.json"


def test_where_the_transform_folds_nothing_is_made_up(here):
    points = np.stack(np.meshgrid(np.arange(60, 180, 4.0), np.arange(60, 140, 4.0)), axis=-1).reshape(-1, 2)
    (here / "a.csv").write_text("x_um,y_um\n" + "".join(f"{x},{y}\n" for x, y in points))
    cells = [cell(k, points[k] + np.array([[0, 0], [2, 0], [2, 2]])) for k in range(len(points))]
    (here / "a.geojson").write_text(json.dumps(cells))
    way = ["--inverse", "--transform", folded(here)]
    lost = np.isnan(invert_of(here, points)).any(axis=1)
    assert 0 < lost.sum() < len(points) / 2
    found = done("points", here / "a.csv", here / "b.csv", *way)
    assert f"{lost.sum()} of them have no one place" in found.stderr
    assert [line == "," for line in (here / "b.csv").read_text().splitlines()[1:]] == lost.tolist()
    found = done("geojson", here / "a.geojson", here / "b.geojson", "--unit", "um", *way)
    assert "are left out" in found.stderr
    kept = {int(feature["id"]) for feature in json.loads((here / "b.geojson").read_text())}
    assert not kept & set(np.flatnonzero(lost).tolist())
    for command, name, more in [("points", "csv", []), ("geojson", "geojson", ["--unit", "um"])]:
        found = call(command, here / f"a.{name}", here / f"c.{name}", "--strict", *more, *way)
        assert found.exit_code == 3
        assert "Nothing was written" in found.stderr
    assert not list(here.glob("*c.*"))


def invert_of(folder, points):
    from comir_batch.io.transform_files import read_json

    return invert(read_json(folder / "fold.json"), points)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["points", "xy.csv", "o.csv", "--transform", "t.json"], "columns x,y do not say their unit"),
        (
            ["points", "um.csv", "o.csv", "--transform", "t.json", "--to-unit", "px"],
            "the pixel size of the moving slide",
        ),
        (["points", "um.csv", "o.txt", "--transform", "t.json"], "not a table of points by its name"),
        (["points", "um.csv", "um.csv", "--transform", "t.json"], "it is there already"),
        (["points", "um.csv", "no/o.csv", "--transform", "t.json"], "no such folder"),
        (["points", "um.csv", "o.csv", "--transform", "none.json"], "none.json: No such file"),
        (["points", "um.csv", "o.csv", "--transform", "."], "a folder without transform.json"),
        (["points", "none.csv", "o.csv", "--transform", "t.json"], "none.csv: No such file"),
        (["geojson", "um.csv", "o.geojson", "--transform", "t.json", "--unit", "um"], "not GeoJSON by its name"),
        (["geojson", "a.geojson", "o.geojson", "--transform", "t.json"], "the pixel size of the fixed slide"),
        (
            ["geojson", "a.geojson", "o.geojson", "--transform", "t.json", "--unit", "um"],
            "feature 1: a geometry of type",
        ),
        (["points", "px.csv", "o.csv", "--transform", "t.json", "--fixed", "grey.png"], "Give --fixed-mpp UM"),
        (["image", *GREY, "--transform", "t.json"], "Give --onto SLIDE"),
        (["image", *GREY, "--transform", "t.json", "--onto", "grey.png"], "Give --onto-mpp UM"),
        (["image", "grey.png", "o.ome.tif", "--transform", "t.json", "--onto", "grey.png"], "Give --mpp UM"),
        (
            ["image", *GREY, "--transform", "t.json", "--onto", "rgb.png", "--onto-mpp", "1", "--reduced-from", "1"],
            "less",
        ),
        (["image", "um.csv", "o.ome.tif", "--transform", "t.json"], "um.csv"),
        (["image", "grey.png", "o.png", "--transform", "t.json"], "no image by its name"),
        (["labels", "rgb.png", "o.ome.tif", "--transform", "t.json", "--mpp", "1"], "not 3 channels of uint8"),
        (
            ["image", *GREY, "--transform", "fold.json", "--inverse", "--onto", "grey.png", "--onto-mpp", "0.5"],
            "no inverse that is good enough",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(here, monkeypatch, words, said):
    monkeypatch.chdir(here)
    (here / "xy.csv").write_text("x,y\n1,2\n")
    (here / "um.csv").write_text("x_um,y_um\n1,2\n")
    (here / "px.csv").write_text("x_px,y_px\n1,2\n")
    (here / "a.geojson").write_text('[{"geometry": {"type": "Circle", "coordinates": []}}]')
    cv2.imwrite("grey.png", np.zeros((400, 500), np.uint8))
    cv2.imwrite("rgb.png", np.zeros((40, 50, 3), np.uint8))
    folded(here)
    before = sorted(here.iterdir())
    found = call(*words)
    assert found.exit_code == 3
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert sorted(here.iterdir()) == before


def test_a_killed_command_leaves_nothing_that_looks_finished(here, slides):
    """It dies while it writes the pixels of the first level."""
    code = (
        "import os, sys; from comir_batch.io.zarr_array import ZarrArray;"
        "ZarrArray.write = lambda *_: os.kill(os.getpid(), 9);"
        "from comir_batch.cli.app import main; main()"
    )
    words = ["image", slides / "moving.ome.tif", here / "a.ome.zarr", "--transform", here / "t.json"]
    onto = ["--onto", slides / "fixed.ome.tif"]
    killed = subprocess.run([sys.executable, "-c", code, "transform", *map(str, words + onto)], check=False)
    assert killed.returncode == -9
    assert not (here / "a.ome.zarr").exists()
    done(*words, *onto)
    assert sorted(path.name for path in here.iterdir()) == ["a.ome.zarr", "t.json"]


@pytest.mark.slow
def test_a_runs_folder_knows_its_slides(undisturbed, slides, tmp_path):
    pair = undisturbed / "pairs" / "p1"
    (tmp_path / "a.csv").write_text("x_px,y_px\n200,200\n")
    done("points", tmp_path / "a.csv", tmp_path / "b.csv", "--transform", pair)
    done("points", tmp_path / "b.csv", tmp_path / "c.csv", "--inverse", "--transform", pair / "transform.json")
    x, y = map(float, (tmp_path / "c.csv").read_text().splitlines()[1].split(","))
    assert (x, y) == (pytest.approx(200, abs=0.01), pytest.approx(200, abs=0.01))
    done("image", slides / "moving.ome.tif", tmp_path / "a.ome.zarr", "--transform", pair)
    pixels, _ = whole(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(pixels, whole(pair / "aligned.ome.zarr")[0])


_PEAK = (
    "import resource, sys; from comir_batch.cli.app import app; app(sys.argv[1:], standalone_mode=False);"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_features(here):
    """200,000 cells take hardly more than 10,000."""
    random, peaks = np.random.default_rng(0), {}
    for count in (10_000, 200_000):
        path, out = here / f"{count}.geojson", here / f"{count}.out.geojson"
        with path.open("w") as stream:
            stream.write('{"type": "FeatureCollection", "features": [\n')
            for number, corner in enumerate(random.uniform(100, 400, (count, 2))):
                outline = np.round(corner + np.array([[0, 0], [6, 1], [3, 5]]), 2)
                stream.write((",\n" if number else "") + json.dumps(cell(number, outline)))
            stream.write("]}\n")
        words = ["geojson", path, out, "--inverse", "--transform", here / "t.json", "--unit", "um"]
        run = [sys.executable, "-c", _PEAK, "transform", *map(str, words)]
        told = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
        assert told[-3:-1] == [str(count), "features"]
        peaks[count] = int(told[-1])
    assert peaks[200_000] < peaks[10_000] + 32
