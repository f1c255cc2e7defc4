"""`merge`: the fixed slide and what a run has aligned to it, as one image whose channels are theirs to the pixel."""

import json

import numpy as np
import pytest
import runs
import tifffile
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.geometry import Region
from comir_batch.io.zarr_array import ZarrArray

pytestmark = pytest.mark.slow
ROWS = ("p1,fixed.ome.tif,moving.ome.tif,stain,negative", "p2,fixed.ome.tif,wide.ome.tif,stain,wide")
CHANNELS = ["stain haematoxylin", "p1 negative", "p2 negative"]


@pytest.fixture(scope="module")
def folder(slides, tmp_path_factory):
    """Two rounds on one fixed slide, the second of them in 16 bits; and a run of both."""
    folder = tmp_path_factory.mktemp("rounds")
    for name in ("fixed", "moving"):
        (folder / f"{name}.ome.tif").symlink_to(slides / f"{name}.ome.tif")
    with tifffile.TiffFile(slides / "moving.ome.tif") as tiff:
        pixels = tiff.asarray().astype(np.uint16) * 200
    tifffile.imwrite(
        folder / "wide.ome.tif",
        pixels,
        metadata={
            "axes": "YX",
            "PhysicalSizeX": runs.MPP,
            "PhysicalSizeY": runs.MPP,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
            "Channel": {"Name": ["negative"]},
        },
    )
    runs.run_here(runs.write_manifest(folder / "manifest.csv", *ROWS), folder / "run", export={"warp_rejected": True})
    return folder


def merge(folder, out, *options):
    return CliRunner().invoke(app, ["merge", str(folder / "run"), "--out", str(folder / out), *options])


def levels(image):
    count = len(json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"])
    arrays = [ZarrArray.open(image / str(level)) for level in range(count)]
    return arrays, [array.read(Region(0, 0, array.shape[2], array.shape[1])) for array in arrays]


def test_each_channel_is_its_slides_to_the_pixel_on_every_level(folder, slides):
    result = merge(folder, "merged.ome.zarr")
    assert result.exit_code == 0, result.output
    assert f"3 channels: {', '.join(CHANNELS)}" in result.stdout
    arrays, merged = levels(folder / "merged.ome.zarr")
    parts = [runs.aligned(folder / "run", pair) for pair in ("p1", "p2")]
    with tifffile.TiffFile(slides / "fixed.ome.tif") as tiff:
        assert np.array_equal(merged[0][0], tiff.asarray())
    assert merged[0].dtype == np.uint16
    for level, pixels in enumerate(merged):
        assert np.array_equal(pixels[1], parts[0][level][0])
        assert np.array_equal(pixels[2], parts[1][level][0])
    assert arrays[0].chunks == (1, 512, 512)
    labels = json.loads((folder / "merged.ome.zarr" / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert [channel["label"] for channel in labels["channels"]] == CHANNELS


def test_as_a_tiff_it_has_a_page_a_channel_and_their_names(folder):
    assert merge(folder, "merged.ome.tif", "--pair", "p2").exit_code == 0
    with tifffile.TiffFile(folder / "merged.ome.tif") as tiff:
        assert tiff.series[0].shape == (2, *runs.GRID.shape)
        assert len(tiff.series[0].levels) == 2
        assert all(f'Name="{name}"' in tiff.ome_metadata for name in (CHANNELS[0], CHANNELS[2]))
    assert not list(folder.glob(".*unfinished"))


@pytest.mark.parametrize("options", [(), ("--pair", "p2")])
def test_a_moving_slide_need_not_be_there_any_more(folder, tmp_path, options):
    kept = tmp_path / "kept"
    (folder / "wide.ome.tif").rename(kept)
    try:
        result = merge(folder, tmp_path / "late.ome.zarr", *options)
    finally:
        kept.rename(folder / "wide.ome.tif")
    assert result.exit_code == 0, result.output
    assert "p2 negative" in result.stdout
    assert ("p1 negative" in result.stdout) == (not options)


@pytest.mark.parametrize("options", [(), ("--pair", "p2")])
def test_a_pair_whose_row_went_bad_is_not_left_out_in_silence(folder, tmp_path, options):
    whole = (folder / "manifest.csv").read_text()
    runs.write_manifest(folder / "manifest.csv", ROWS[0], f"{ROWS[1]},too many")
    try:
        result = merge(folder, "x.ome.zarr", *options)
        assert merge(folder, tmp_path / "p1.ome.zarr", "--pair", "p1").exit_code == 0
    finally:
        (folder / "manifest.csv").write_text(whole)
    assert result.exit_code == 3
    assert "row 3" in result.stderr
    assert not (folder / "x.ome.zarr").exists()


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [
        ("x.ome.zarr", ("--pair", "p3"), "has no pair p3"),
        ("x.png", (), "no image by its name"),
        ("manifest.csv", (), "there already"),
    ],
)
def test_what_cannot_be_merged_is_said_and_nothing_is_left(folder, out, options, said):
    result = merge(folder, out, *options)
    assert result.exit_code == 3
    assert said in result.stderr
    assert not (folder / "x.ome.zarr").exists()
    assert (folder / "manifest.csv").is_file()


def test_aligned_images_of_several_pixel_sizes_do_not_go_into_one(folder, tmp_path):
    image = folder / "run" / "pairs" / "p2" / "aligned.ome.zarr"
    kept = tmp_path / "kept"
    image.rename(kept)
    try:
        result = merge(folder, "x.ome.zarr", "--pair", "p2")
        assert "has no aligned image of p2" in result.stderr
        image.mkdir()
        (image / "zarr.json").write_bytes((kept / "zarr.json").read_bytes())
        (image / "0").symlink_to(kept / "1")
        result = merge(folder, "x.ome.zarr")
        assert result.exit_code == 3
        assert "the aligned image of p2 has 271 x 262 pixels, not 541 x 523" in result.stderr
    finally:
        for path in (image / "0", image / "zarr.json"):
            path.unlink(missing_ok=True)
        if image.exists():
            image.rmdir()
        kept.rename(image)
