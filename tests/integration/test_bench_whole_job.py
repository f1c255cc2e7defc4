"""A whole job beside others: all that a program starts is counted, and who cannot run is named with its reason."""

import json
import shutil
import sys

import pytest
import runs
from typer.testing import CliRunner

from comir_batch.bench.process_tree import run_measured
from comir_batch.cli.app import app
from comir_batch.core.errors import TaskError

_BUSY_CHILD = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import time
held = bytearray(150_000_000)
while time.process_time() < 1.0:
    pass
time.sleep(0.3)
'''], check=True)
"""


def test_children_count_for_a_program(tmp_path):
    taken = run_measured([sys.executable, "-c", _BUSY_CHILD], tmp_path / "log.txt")
    assert 0.9 < taken.cpu_s < 2.0
    assert taken.wall_s > 1.2
    assert 150 < taken.peak_mb < 300


def test_a_program_that_fails_is_told_with_its_last_words(tmp_path):
    with pytest.raises(TaskError, match=r"ended with 3: .*no such slide"):
        run_measured([sys.executable, "-c", "print('no such slide'); raise SystemExit(3)"], tmp_path / "log.txt")
    with pytest.raises(TaskError, match="cannot be started: No such file"):
        run_measured([str(tmp_path / "python")], tmp_path / "log.txt")


@pytest.mark.slow
def test_ours_is_measured_and_held_to_the_truth_and_a_peer_that_is_missing_is_named(tmp_path):
    runs.make_slides(tmp_path)
    slide, out = tmp_path / "fixed.ome.tif", tmp_path / "out"
    twin = shutil.copy(slide, tmp_path / "twin.ome.tif")
    arguments = [slide, twin, "--modalities", "one", "other", "--model", "none", "--angle", "4", "--amplitude", "1"]
    result = CliRunner().invoke(
        app, ["bench", "whole-job", *map(str, arguments), "--out", str(out), "--valis", "nobody"]
    )
    assert result.exit_code == 0, result.output
    ours, valis = json.loads((out / "whole-job.json").read_text())["rows"]
    assert ours["says"] == "verdict review"  # the slide is so small that only three tiles are held out
    assert ours["taken"]["cpu_s"] > 1
    assert ours["taken"]["peak_mb"] > 100
    assert ours["median_um"] < runs.MPP
    assert valis["taken"] is None
    assert valis["says"] == "failed 1 times of 1: nobody cannot be started: No such file or directory"
