"""The command as a user starts, stops and resumes it, in processes of its own."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import Motion, move, write_pyramid
from comir_batch.core.geometry import Grid
from comir_batch.training.ihc import MPP, haematoxylin_dab_channels

pytestmark = pytest.mark.slow

PROGRAM = Path(sys.executable).with_name("comir-batch")
QUICK = ["--model", "none", "--set", "register.iterations=20", "--set", "register.angles=24", "--workers", "1"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """One good pair, and a row whose slide is not there."""
    folder = tmp_path_factory.mktemp("a batch, with 'quotes'")
    haematoxylin, dab = haematoxylin_dab_channels(immunohistochemistry()[:320, :320])
    grid = Grid(320, 320, MPP, MPP)
    moving, moving_grid, _ = move(dab[None], grid, Motion(angle_deg=10.0, shift_um=(3.0, 2.0), amplitude_um=1.0))
    write_pyramid(haematoxylin[None], grid, folder / "fixed.ome.tif", ["haematoxylin"])
    write_pyramid(moving, moving_grid, folder / "moving.ome.tif", ["dab"])
    path = folder / "manifest.csv"
    path.write_text(
        "pair_id,fixed,moving,fixed_modality,moving_modality\n"
        "good,fixed.ome.tif,moving.ome.tif,haematoxylin,dab\n"
        "bad,fixed.ome.tif,missing.tif,haematoxylin,dab\n"
    )
    return path


def start(manifest: Path, out: Path, *options: str) -> subprocess.Popen:
    command = [str(PROGRAM), "run", str(manifest), "--out", str(out), *QUICK, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_nothing_is_run_while_a_row_is_bad(manifest, tmp_path):
    with start(manifest, tmp_path / "run") as process:
        out, err = process.communicate()
    assert process.returncode == 3
    assert out == ""
    assert err.splitlines()[0] == "1 problem in the manifest:"
    assert "row 3, column moving" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("executor", ["local", "serial"])
def test_a_stopped_run_is_resumed_by_the_same_command(manifest, tmp_path, executor):
    run = tmp_path / "run"
    options = ["--skip-bad-rows", "--executor", executor]
    with start(manifest, run, *options) as process:
        while "register" not in (line := process.stderr.readline()):
            assert line, "the run ended before registration began"
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 143
    assert "the same command resumes" in err

    with start(manifest, run, *options) as process:
        out, err = process.communicate()
    assert process.returncode in {1, 4}  # of one good row, whose verdict is not this test's matter, and a bad one
    assert not [line for line in err.splitlines() if " chunk-" in line]
    assert "report:" in out
    assert "row 3, column moving" in out
    with (run / "results.csv").open(newline="") as stream:
        row, bad = csv.DictReader(stream)
    assert row["pair_id"] == "good"
    assert row["verdict"] in {"accept", "review", "reject"}
    assert bad["verdict"] == "error"
    assert (run / "pairs" / "good" / "transform.json").is_file()

    with start(manifest, run, *options) as process:
        _, err = process.communicate()
    assert "started" not in err

    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert sum(event["kind"] == "run_done" for event in events) == 2
