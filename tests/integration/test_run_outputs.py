"""What a run leaves: every file that the issue of the product names, readable by the tools that they are for."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import runs
import SimpleITK
import tifffile
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models import open_ome_zarr
from tiffslide import TiffSlide
from typer.testing import CliRunner

from comir_batch.bench.known_motion import errors
from comir_batch.cli.app import app
from comir_batch.core.geometry import Grid
from comir_batch.pipeline import plan
from comir_batch.registration.elastix_maps import parse
from comir_batch.training.ihc import MPP
from comir_batch.warp.resample import warp_array

pytestmark = pytest.mark.slow
POINTS = runs.tissue_points()
WRITERS = ("chunk", "register", "warp", "export", "report")
SHAPES = [(1, 523, 541), (1, 262, 271)]


@pytest.fixture(scope="module")
def ran(slides, tmp_path_factory):
    """The command as a user gives it: worker processes, OME-TIFF, no intermediate results."""
    out = tmp_path_factory.mktemp("local") / "run"
    done = runs.call(runs.command(slides / "manifest.csv", out, "--ome-tiff"))
    return out, done


def test_the_command_ends_well_and_says_so(ran):
    out, done = ran
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+", done.stderr)
    assert str(out / "report.html") in done.stdout


def test_every_promised_file_is_there_and_no_other(ran):
    out, _ = ran
    pair = {path.name for path in (out / "pairs" / "p1").iterdir()}
    assert pair == {
        *("transform.h5", "transform.json", "elastix", "aligned.ome.zarr", "aligned.ome.tif"),
        *("transforms", "verdict.json", "report.html", "logs"),
    }
    top = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    tables = {"run.json", "results.csv", "costs.json", "report.html", "records.jsonl", "events.jsonl"}
    assert top == {*tables, "cluster", "logs", "pairs", "work"}
    assert not runs.stages(path.name for path in (out / "work").iterdir()) & {"chunk", "represent"}
    assert not runs.leftovers(out)


def test_the_transform_is_right_and_itk_reads_the_same(ran, truth):
    out, _ = ran
    found = runs.transform(out)
    assert errors(found, truth, POINTS).median < 0.5
    assert errors(found, truth, POINTS).p95 < 1.5
    itk = SimpleITK.ReadTransform(str(out / "pairs" / "p1" / "transform.h5"))
    theirs = np.array([itk.TransformPoint(point) for point in POINTS.tolist()])
    assert np.abs(theirs - found.map(POINTS)).max() < 1e-6


def test_viewers_get_the_transform_too_with_its_conventions_and_errors(ran):
    folder = ran[0] / "pairs" / "p1" / "transforms"
    assert {path.name for path in folder.iterdir()} == {"napari.json", "qupath.json", "warpy.json", "conventions.json"}
    told = {entry["dialect"]: entry for entry in json.loads((folder / "conventions.json").read_text())}
    assert told["napari"]["maps"] == "moving to fixed"
    assert told["qupath"]["pixel_centre"] == 0.5
    assert 0 < told["warpy"]["error_um"]["max"] < told["qupath"]["error_um"]["max"] < 10


def test_elastix_own_chain_is_whole_down_to_the_start(ran):
    folder = ran[0] / "pairs" / "p1" / "elastix"
    here = max(path.name for path in folder.glob("TransformParameters.*.txt"))
    chain = []
    while here != "NoInitialTransform":
        (here,) = parse((folder / here).read_text())["InitialTransformParameterFileName"]
        chain.append(here)
    assert "InitialTransform.0.txt" in chain


def test_the_aligned_image_is_ome_zarr_that_others_open(ran):
    out, _ = ran
    image = out / "pairs" / "p1" / "aligned.ome.zarr"
    assert open_ome_zarr(str(image)).ome_zarr_version == "0.5"
    (node,) = Reader(parse_url(str(image)))()
    assert [level.shape for level in node.data] == SHAPES
    assert np.array_equal(np.asarray(node.data[0]), runs.aligned(out)[0])


def test_the_aligned_image_is_the_moving_slide_under_the_transform(ran, slides):
    out, _ = ran
    with tifffile.TiffFile(slides / "moving.ome.tif") as tiff:
        moving = tiff.asarray()[None]
    expected = warp_array(moving, Grid(*moving.shape[:0:-1], MPP, MPP), runs.transform(out), runs.GRID)
    difference = np.abs(runs.aligned(out)[0].astype(int) - expected.astype(int))
    assert difference.max() <= 1


def test_the_tiff_opens_in_tifffile_and_tiffslide_at_the_right_size(ran):
    path = ran[0] / "pairs" / "p1" / "aligned.ome.tif"
    with tifffile.TiffFile(path) as tiff:
        assert [level.shape for level in tiff.series[0].levels] == [shape[1:] for shape in SHAPES]
        for level, pixels in zip(tiff.series[0].levels, runs.aligned(ran[0]), strict=True):
            assert np.array_equal(level.asarray(), pixels[0])
    with TiffSlide(path) as slide:
        assert slide.level_dimensions[0] == (541, 523)
        assert slide.level_count == 2
        assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(MPP)
        assert float(slide.properties["tiffslide.mpp-y"]) == pytest.approx(MPP)


def test_table_and_verdict_agree(ran):
    out, _ = ran
    verdict = json.loads((out / "pairs" / "p1" / "verdict.json").read_text())
    row = runs.results(out)["p1"]
    assert row["verdict"] == verdict["verdict"] == "accept"
    assert row["reasons"] == "; ".join(verdict["reasons"])
    for name, value in verdict["metrics"].items():
        assert row[name] == ("" if value is None else str(value))
    assert float(row["tile_error_median_um"]) < 1.0
    assert int(row["tiles_located"]) > 4
    assert float(row["seconds"]) > 0
    assert int(row["peak_mb"]) > 100


def test_what_each_stage_took_stands_beside_what_was_predicted(ran):
    out, _ = ran
    content = json.loads((out / "costs.json").read_text())
    stages = {stage["stage"]: stage for stage in content["stages"]}
    assert list(stages) == ["chunk", "register", "judge", "warp", "export", "report"]
    for stage in stages.values():
        predicted, taken = stage["predicted"], stage["taken"]
        assert stage["jobs"] == stage["planned"]
        assert taken["cpu_s"] > 0
        assert 0 < taken["wall_s"] <= content["wall_s"]
        assert taken["wall_s"] <= taken["worker_s"] + 0.01
        assert predicted["cpu_s"] > 0
        # Small images fill no buffers; a worker that has registered holds the libraries of elastix ever after.
        assert predicted["memory_mb"] / 8 < taken["peak_mb"] < predicted["memory_mb"] + 1500
        assert taken["written_mb"] < 4 * 1000 * predicted["disk_gb"] + 0.1
    assert all(
        stages[name]["taken"]["written_mb"] > stages[name]["predicted"]["disk_gb"] * 1000 / 8 for name in WRITERS
    )
    assert "The plan and what it took" in (out / "report.html").read_text(encoding="utf-8")


def test_a_plan_goes_by_what_a_run_took(ran, slides):
    out, _ = ran
    _program, _run, *words = runs.command(slides / "manifest.csv", out, "--ome-tiff", "--like", str(out))
    told = CliRunner().invoke(app, ["plan", *words])
    assert told.exit_code == 0, told.output
    head, *rows = [line.split("  ") for line in told.stdout.split("stages:\n")[1].splitlines()[:7]]
    columns = [name.strip() for name in head if name.strip()]
    assert {"CPU hours", "worker hours", "GB a task", "GB read", "GB written"} < set(columns)
    content = json.loads((out / "costs.json").read_text())
    hours = {row[0].strip(): float([cell for cell in row if cell.strip()][5]) for row in rows}
    for stage in content["stages"]:
        assert hours[stage["stage"]] == pytest.approx(stage["taken"]["cpu_s"] / 3600, rel=0.01)
    assert f"by what {out} took" in told.stdout
    assert not told.stderr


def test_a_plan_says_so_where_a_run_is_counted_anew(slides, tmp_path):
    (tmp_path / "run.json").touch()
    told = CliRunner().invoke(app, ["plan", str(slides / "manifest.csv"), "--model", "none", "--out", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert f"{tmp_path} holds a run: what it has done already is counted, too" in told.stdout


def test_a_plan_that_does_not_fit_on_the_disk_is_a_warning(slides, monkeypatch):
    monkeypatch.setattr(plan, "_free_gb", lambda _out: 0.0001)
    told = CliRunner().invoke(app, ["plan", str(slides / "manifest.csv"), "--model", "none"])
    assert told.exit_code == 0, told.output
    assert "are free. Make room, choose another --out" in told.stderr
    assert "holds a run" not in told.stdout


def test_the_run_says_how_to_make_it_again(ran, slides):
    content = json.loads((ran[0] / "run.json").read_text())
    assert content["config"]["register"]["iterations"] == runs.QUICK["register"]["iterations"]
    assert content["manifest"]["path"] == str(slides / "manifest.csv")
    assert re.fullmatch("[0-9a-f]{64}", content["pairs"][0]["fixed"]["digest"])
    assert content["versions"]["itk-elastix"] != "not installed"
    assert content["command"][1] == "run"


def test_pages_need_nothing_from_elsewhere(ran):
    for page in (ran[0] / "report.html", ran[0] / "pairs" / "p1" / "report.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", html)
        assert "p1" in html


def test_worker_processes_and_one_process_give_the_same(ran, undisturbed):
    runs.assert_same_result(ran[0], undisturbed)


def test_the_same_command_again_starts_nothing_and_changes_no_file(ran, slides):
    out, _ = ran
    before = runs.snapshot(out)
    again = runs.call(runs.command(slides / "manifest.csv", out, "--ome-tiff"))
    assert again.returncode == 0
    assert "dashboard" not in again.stderr
    assert "accept" in again.stdout
    assert runs.snapshot(out) == before
