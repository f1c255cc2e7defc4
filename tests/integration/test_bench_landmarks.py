"""Landmarks under a run and under other methods: known partners come near, and what cannot be measured is said."""

import json

import numpy as np
import pytest
import runs
from typer.testing import CliRunner

from comir_batch.bench.landmarks import Landed, landmark_cells
from comir_batch.cli.app import app


def bench(manifest, out, *more):
    return CliRunner().invoke(app, ["bench", "landmarks", str(manifest), "--out", str(out), *more])


@pytest.mark.slow
def test_landmarks_come_near_under_the_run_and_are_told_beside_others(tmp_path):
    truth = runs.make_slides(tmp_path)
    part = runs.TISSUE
    ends = np.array([[part.x0, part.y0], [part.x1, part.y1]]) * runs.MPP
    fixed = np.random.default_rng(0).uniform(*ends, (40, 2))
    for name, points in (("fixed", fixed), ("moving", truth.map(fixed))):
        np.savetxt(tmp_path / f"{name}.csv", points, delimiter=",", header="x_um,y_um", comments="")
    manifest = tmp_path / "pairs.csv"
    rows = [
        "a,fixed.ome.tif,moving.ome.tif,one,other,fixed.csv,moving.csv",
        "b,fixed.ome.tif,moving.ome.tif,one,other,,",
    ]
    manifest.write_text("\n".join([f"{runs.HEADER},fixed_landmarks,moving_landmarks", *rows]) + "\n", encoding="utf-8")
    quick = {"chunk.mpp": runs.MPP, "register.iterations": 50, "register.samples": 1024, "register.angles": 36}
    settings = [word for key, value in quick.items() for word in ("--set", f"{key}={value}")]
    result = bench(manifest, tmp_path / "out", "--model", "none", "--set", "execution.executor=serial", *settings)
    assert result.exit_code == 0, result.output
    assert "comir-batch run" in result.stdout
    told = {row["method"]: row for row in json.loads((tmp_path / "out" / "landmarks.json").read_text())}
    assert {row["pair"] for row in told.values()} == {"a"}
    start, ours = told["start"], told["comir-batch run"]
    assert (start["improved"], start["count"]) == (0.0, 40)
    assert ours["median"] < 0.01 < start["median"] < start["p90"]
    assert ours["improved"] > 0.95
    assert ours["note"].startswith("verdict ")
    assert len(told) == 4


def test_pairs_without_landmarks_are_refused(tmp_path):
    runs.make_slides(tmp_path)
    manifest = tmp_path / "pairs.csv"
    manifest.write_text(f"{runs.HEADER}\na,fixed.ome.tif,moving.ome.tif,one,other\n", encoding="utf-8")
    result = bench(manifest, tmp_path / "out")
    assert result.exit_code != 0
    assert "fixed_landmarks" in result.stderr


def test_what_has_no_transform_is_a_dash_with_its_reason():
    rows = [
        Landed("a", "SIFT", 40, note="too few matches agree"),
        Landed("a", "run", 40, 0.0123, 0.02, 0.975, "verdict accept"),
    ]
    first, second = landmark_cells(rows)
    assert first == ("a", "SIFT", "40", "-", "-", "-", "too few matches agree")
    assert second[3:6] == ("1.23", "2.00", "97.50")
