"""What images a run writes: at what pixel size, or none; and nothing but they is made again when that changes."""

import json

import numpy as np
import pytest
import runs
import tifffile
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid
from comir_batch.training.ihc import MPP
from comir_batch.warp.resample import warp_array

pytestmark = pytest.mark.slow
COARSE = 2.5 * MPP  # no whole number of the fixed slide's pixels


@pytest.fixture(scope="module")
def coarse(slides, tmp_path_factory):
    """A run whose images are coarser than the slides."""
    out = tmp_path_factory.mktemp("coarse") / "run"
    runs.run_here(slides / "manifest.csv", out, warp={"mpp": COARSE}, export={"ome_tiff": True})
    return out


def test_the_images_are_the_moving_slide_at_the_pixel_size_that_was_asked_for(coarse, slides):
    (pixels,) = runs.aligned(coarse)
    assert pixels.shape == (1, 210, 217)  # 523 / 2.5 and 541 / 2.5, rounded up
    with tifffile.TiffFile(slides / "moving.ome.tif") as tiff:
        moving = tiff.asarray()[None]
    expected = warp_array(
        moving, Grid(*moving.shape[:0:-1], MPP, MPP), runs.transform(coarse), runs.GRID.coarser(2.5, 2.5, 217, 210)
    )
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1


def test_their_metadata_say_where_they_lie(coarse):
    folder = coarse / "pairs" / "p1"
    metadata = json.loads((folder / "aligned.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    scale, translation = metadata["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert scale["scale"] == [1.0, COARSE, COARSE]
    assert translation["translation"] == [0.0, 0.75 * MPP, 0.75 * MPP]  # (2.5 - 1) / 2 pixels of the fixed slide
    with tifffile.TiffFile(folder / "aligned.ome.tif") as tiff:
        assert tiff.series[0].shape == (210, 217)
        assert f'PhysicalSizeX="{COARSE}"' in tiff.ome_metadata


def test_transforms_are_still_between_the_slides_own_pixels(coarse, slides, tmp_path):
    fine = tmp_path / "run"
    runs.run_here(slides / "manifest.csv", fine)
    for name in ("qupath.json", "warpy.json"):
        theirs, ours = ((out / "pairs" / "p1" / "transforms" / name).read_bytes() for out in (coarse, fine))
        assert theirs == ours


def test_asked_for_none_the_same_run_drops_them_and_registers_nothing_anew(coarse, slides):
    since = len(runs.lines(coarse / "records.jsonl"))
    runs.run_here(slides / "manifest.csv", coarse, export={"images": False})
    assert runs.stages(runs.tasks(coarse, since)) == {"export", "report"}
    names = {path.name for path in (coarse / "pairs" / "p1").iterdir()}
    assert {"transform.h5", "report.html"} < names
    assert not names & {"aligned.ome.zarr", "aligned.ome.tif"}
    assert runs.results(coarse)["p1"]["verdict"] == "accept"
    since = len(runs.lines(coarse / "records.jsonl"))
    runs.run_here(slides / "manifest.csv", coarse, warp={"mpp": COARSE})
    assert runs.stages(runs.tasks(coarse, since)) == {"warp", "export", "report"}
    assert [pixels.shape for pixels in runs.aligned(coarse)] == [(1, 210, 217)]


def test_a_tiff_alone_leaves_no_zarr_and_nothing_to_do(coarse, slides):
    (lossless,) = runs.aligned(coarse)
    alone = {"ome_zarr": False, "ome_tiff": True, "tiff_compression": "jpeg"}
    since = len(runs.lines(coarse / "records.jsonl"))
    for stages in ({"export", "report"}, set()):  # the OME-Zarr that is there already is what it is made of
        runs.run_here(slides / "manifest.csv", coarse, keep_work=False, warp={"mpp": COARSE}, export=alone)
        assert runs.stages(runs.tasks(coarse, since)) == stages
        since = len(runs.lines(coarse / "records.jsonl"))
        assert not (coarse / "pairs" / "p1" / "aligned.ome.zarr").exists()
    with tifffile.TiffFile(coarse / "pairs" / "p1" / "aligned.ome.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.JPEG
        assert np.abs(tiff.asarray().astype(int) - lossless[0].astype(int)).mean() < 3
    page = (coarse / "pairs" / "p1" / "report.html").read_text()
    assert "aligned.ome.tif" in page
    assert "aligned.ome.zarr" not in page


def test_no_image_of_any_kind_is_refused(slides, tmp_path):
    with pytest.raises(ConfigError, match=r"without export.ome_zarr and export.ome_tiff there are no aligned images"):
        runs.run_here(slides / "manifest.csv", tmp_path / "run", export={"ome_zarr": False})


def test_jpeg_of_16_bits_is_refused_before_anything_is_run(tmp_path):
    deep = np.zeros((256, 256), np.uint16)
    for name in ("fixed", "deep"):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", deep, metadata={"axes": "YX"})
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"{runs.HEADER},fixed_mpp,moving_mpp\np1,fixed.ome.tif,deep.ome.tif,stain,negative,0.5,0.5\n")
    options = ["--model", "none", "--only-ome-tiff", "--compression", "jpeg"]
    result = CliRunner().invoke(app, ["run", str(manifest), "--out", str(tmp_path / "run"), *options])
    assert result.exit_code == 3, result.output
    assert "the moving slide of the pair p1 has uint16 pixels, and JPEG holds 8-bit ones" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--no-images", "--ome-tiff"], "export.images is false"),
        (["--compression", "jpeg"], "none is written; add --ome-tiff"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(slides, tmp_path, options, said):
    result = CliRunner().invoke(app, ["run", str(slides / "manifest.csv"), "--out", str(tmp_path / "run"), *options])
    assert result.exit_code == 3
    assert said in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_plan_tells_what_coarser_images_save(slides):
    def warp_tasks(*options):
        small = ("--set", "warp.shard=128", "--set", "warp.chunk=64")
        result = CliRunner().invoke(app, ["plan", str(slides / "manifest.csv"), "--model", "none", *small, *options])
        assert result.exit_code == 0, result.output
        rows = [line.split() for line in result.stdout.splitlines() if line.startswith("warp")]
        return [int(row[2]) for row in rows]

    (own,), (same,), (fewer,) = (warp_tasks("--output-mpp", str(mpp)) for mpp in (0, MPP, COARSE))
    assert own == same > fewer
    assert warp_tasks("--no-images") == []
