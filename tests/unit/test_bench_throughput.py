"""Throughput: everybody in turn, results held against each other, and who is missing has a row."""

import json
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from comir_batch.bench import throughput_stages, throughput_warp, throughput_writing
from comir_batch.bench.comparison import COLUMNS, Agreement, Comparison, Contender, Interval, compare
from comir_batch.bench.known_motion import write_pyramid
from comir_batch.bench.material import Material, pixels_of
from comir_batch.bench.threads import limited
from comir_batch.cli.app import app
from comir_batch.core.geometry import Grid

SIDE = 600


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A smooth colour slide smaller than the square that is made of it."""
    path = tmp_path_factory.mktemp("slide") / "real.ome.tif"
    coarse = np.random.default_rng(0).integers(0, 255, (3, 40, 50)).astype(np.float32)
    ramp = np.kron(coarse, np.ones((1, 8, 8), np.float32))
    smooth = (ramp + np.roll(ramp, 3, 1) + np.roll(ramp, 4, 2) + np.roll(ramp, (4, 4), (1, 2))) / 4
    write_pyramid(smooth.astype(np.uint8), Grid(400, 320, 0.5, 0.5), path, ["red", "green", "blue"])
    return path


@pytest.fixture
def material(slide, tmp_path):
    return Material(slide, *pixels_of(slide, SIDE), tmp_path, 1, "dapi-tritc", "", 128)


def exactly(ours, other):
    return Agreement(ours == other, f"{other} for {ours}")


def busy():
    return sum(range(50_000))


def test_all_run_in_turn_after_a_warm_up(tmp_path):
    calls, folders = [], set()

    def contender(name, **more):
        def run(folder):
            assert not any(folder.iterdir())
            (folder / "written").touch()
            folders.add(folder)
            calls.append(name)
            busy()
            return 1

        return Contender(name, run, **more)

    others = (contender("a", aim=0.001), contender("b", aim=1e9), contender("c", needs="no_such_package"))
    rows = compare(Comparison("group", "work", contender("ours"), others, exactly), 3, tmp_path / "files")
    assert calls == ["ours", "a", "b", *("ours", "a", "b"), *("b", "a", "ours"), *("ours", "a", "b")]
    assert [row.met for row in rows] == [True, False, None]
    assert not any(folder.exists() for folder in folders)
    assert all(len(row.cells()) == len(COLUMNS) and all(row.cells()) for row in rows)
    assert "no_such_package is not installed" in rows[2].cells()[1]
    assert "comir-batch[peers]" in rows[2].missing
    assert rows[0].ratio.cpu.low <= rows[0].ratio.cpu.median <= rows[0].ratio.cpu.high


def test_who_fails_or_differs_is_told_and_the_others_go_on(tmp_path):
    def broken(_folder):
        raise ValueError("no such\ncodec")

    others = (Contender("broken", broken), Contender("wrong", lambda _: busy() and 2))
    rows = compare(Comparison("g", "w", Contender("ours", lambda _: busy() and 1), others, exactly), 1, tmp_path / "f")
    assert rows[0].missing == "failed: no such codec"
    assert rows[1].cells()[-1] == "NO: 2 for 1"
    assert rows[1].ratio is not None
    assert rows[1].met is False
    assert dict(zip(COLUMNS, rows[1].cells(), strict=True))["met"] == "results differ"


def test_an_interval_is_the_median_and_the_ends():
    assert Interval.of([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0)
    assert str(Interval(2.0, 1.0, 3.0)) == "2 (1-3)"


def test_threads_are_told_to_libraries_and_forgotten(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("VIPS_CONCURRENCY", raising=False)
    with limited(3):
        assert os.environ["VIPS_CONCURRENCY"] == os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "VIPS_CONCURRENCY" not in os.environ


@pytest.mark.parametrize("name", ["skimage.transform.warp", "libvips mapim", "libvips affine"])
def test_warps_agree(material, name, tmp_path):
    found = []
    for comparison in throughput_warp.comparisons(material):
        for other in comparison.others:
            if other.name == name:
                if other.lacking():
                    pytest.skip(other.lacking())
                found.append(comparison.agreement(comparison.ours.run(tmp_path), other.run(tmp_path)))
    assert found
    assert all(each.good for each in found), found


def test_warps_that_are_a_pixel_apart_do_not_agree(material, tmp_path):
    bent = next(throughput_warp.comparisons(material))
    ours = bent.ours.run(tmp_path)
    assert not bent.agreement(ours, np.roll(ours, 1, axis=1)).good
    assert not bent.agreement(ours, ours[1:]).good
    assert bent.agreement(ours, ours).good


@pytest.mark.parametrize(
    "comparisons",
    [
        throughput_writing.zarr_comparisons,
        throughput_writing.tiff_comparisons,
        throughput_stages.chunk_comparisons,
        throughput_stages.represent_comparisons,
    ],
)
def test_rows_are_full(material, comparisons, tmp_path):
    rows = [row for each in comparisons(material) for row in compare(each, 1, tmp_path / "run")]
    assert rows
    for row in rows:
        assert len(row.cells()) == len(COLUMNS)
        assert all(row.cells())
        assert "failed" not in row.missing
        assert not row.agrees.startswith("NO")
        assert row.missing or row.ratio.cpu.median > 0


def test_the_command_writes_a_table_with_the_machine(slide, tmp_path):
    out = tmp_path / "out"
    words = ["bench", "throughput", str(slide), "--out", str(out), "--side", "300", "--repeats", "1"]
    result = CliRunner().invoke(app, [*words, "--only", "ome-tiff"])
    assert result.exit_code == 0, result.output
    told = json.loads((out / "throughput.json").read_text())
    assert told["machine"]["threads"] == 1
    assert told["machine"]["processor"]
    assert {row["group"] for row in told["rows"]} == {"ome-tiff"}
    assert "libvips tiffsave" in (out / "throughput.md").read_text()
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "nothing"], "represent, warp, ome-zarr, ome-tiff, chunk"),
        (["--modality", "foo"], "the model dapi-tritc is for dapi and tritc, not for foo"),
        (["--out", "{file}"], "cannot make the folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(slide, tmp_path, options, said):
    file = tmp_path / "file"
    file.touch()
    words = ["bench", "throughput", str(slide), "--out", str(tmp_path / "out"), "--side", "300"]
    refused = CliRunner().invoke(app, [*words, *(option.format(file=file) for option in options)])
    assert refused.exit_code == 3, refused.output
    assert said in " ".join(refused.stderr.split())
