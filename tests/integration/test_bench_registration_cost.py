"""The cost of a registration, step by step: what is timed finds the truth, and elastix alone stands beside."""

import shutil

import numpy as np
import pytest
import runs
from typer.testing import CliRunner

from comir_batch.bench.registration_cost import STEPS, StepCost, _laid_out, _truth, cost_cells
from comir_batch.cli.app import app
from comir_batch.core.geometry import Grid
from comir_batch.registration.evened import raw_view
from comir_batch.registration.images import RegistrationImage


def test_a_pair_is_laid_out_in_mirrored_tiles_and_moved_by_the_truth():
    y, x = np.mgrid[:60, :80].astype(np.float32)
    image = RegistrationImage(np.hypot(y - 20, x - 30), np.ones((60, 80), bool), Grid(80, 60, 2.0, 2.0))
    (evened,) = _laid_out([raw_view(image, image)], 128)
    view = evened.as_scanned()
    assert view.fixed.grid == view.moving.grid == Grid(128, 128, 2.0, 2.0)
    assert np.array_equal(view.fixed.pixels[:60, 80:128], image.pixels[:, :31:-1])
    points = np.array([[60.0, 60.0], [100.0, 140.0]])
    there = view.moving.grid.to_pixels(_truth(view.fixed.grid).map(points)).round().astype(int)
    here = view.fixed.grid.to_pixels(points).astype(int)
    for (column, row), (moved_column, moved_row) in zip(here, there, strict=True):
        assert view.moving.pixels[moved_row, moved_column] == pytest.approx(view.fixed.pixels[row, column], abs=1.0)


def test_the_whole_is_the_sum_of_our_steps():
    costs = [StepCost(256, step, float(k + 1), 2.0, 100.0 + k, None) for k, step in enumerate(STEPS)]
    *steps, whole = cost_cells(costs)
    assert [row[1] for row in steps] == list(STEPS)
    assert whole == ("256", "whole registration", "7.0", "6.0", "103", "-")  # 1 + 2 + 4: elastix alone is not ours


@pytest.mark.slow
def test_every_step_is_told_and_finds_the_motion(tmp_path):
    runs.make_slides(tmp_path)
    slide, out = tmp_path / "fixed.ome.tif", tmp_path / "out"
    twin = shutil.copy(slide, tmp_path / "twin.ome.tif")
    quick = ("execution.executor=serial", f"chunk.mpp={runs.MPP}", "register.iterations=30", "register.angles=24")
    options = [
        word for setting in (*quick, "register.samples=512", "register.grid_um=100") for word in ("--set", setting)
    ]
    arguments = [slide, twin, "--modalities", "one", "other", "--out", out, "--side", "320", "--repeats", "1"]
    result = CliRunner().invoke(app, ["bench", "registration-cost", *map(str, arguments), "--model", "none", *options])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("320")]
    assert len(rows) == len(STEPS) + 1
    assert all(float(row[-4]) > 0 and float(row[-2]) > 100 for row in rows)
    found = [float(row[-1]) for row in rows if row[-1] != "-"]
    assert len(found) == 2
    assert max(found) < runs.MPP
