"""A run on a scheduler and workers that somebody else has started, joined by a file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import cluster_runs
import pytest
import runs
from cluster_runs import NETWORK, RAW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def by_hand(tmp_path):
    """Return a function that starts a scheduler and workers of these kinds; it returns their file and processes."""
    started = []

    def module(name, *options):
        with (tmp_path / f"{name}-{len(started)}.log").open("w") as log:
            words = [sys.executable, "-m", f"comir_batch.execution.{name}", *map(str, options)]
            started.append(subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True))
        return started[-1]

    def start(*kinds):
        file = tmp_path / "joined" / "scheduler.json"
        module("scheduler", "--scheduler-file", file, "--host", "127.0.0.1")
        for kind in kinds:
            where = ("--scheduler-file", file, "--tls", file.parent / "tls", "--interface", "lo")
            wait_for(file.exists)
            module("worker", *where, "--kind", kind, "--name", f"{kind}-by-hand")
        return file, list(started)

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def command(inputs, out, file, *options):
    return runs.command(
        inputs / "both.csv",
        out,
        "--executor",
        "attach",
        "--scheduler-file",
        str(file),
        "--queue-timeout",
        "60",
        *options,
        execution={"workers": 0},
    )


def test_workers_started_by_hand_give_the_same_result(inputs, site_profile, undisturbed, by_hand, tmp_path):
    file, (scheduler, *workers) = by_hand("cpu", "gpu")
    assert file.stat().st_mode & 0o777 == 0o600
    out = tmp_path / "run"
    done = runs.call(command(inputs, out, file, "--profile", str(site_profile())))
    assert done.returncode == 0, done.stderr
    for pair in (RAW, NETWORK):
        runs.assert_same_result(out, undisturbed, pair)
    seen = set(cluster_runs.workers_of_tasks(out))
    assert {stage for stage, worker in seen if worker == "gpu-by-hand"} == {"represent"}
    assert {worker for stage, worker in seen if stage != "represent"} == {"cpu-by-hand"}
    assert scheduler.poll() is None, "the scheduler is not the driver's to end"

    scheduler.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in (scheduler, *workers)] == [0, 0, 0]
    assert not file.exists()
    assert not list((file.parent / "tls").iterdir())


def test_where_workers_run_networks_must_be_said(inputs, tmp_path):
    done = runs.call(command(inputs, tmp_path / "run", tmp_path / "scheduler.json"))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 3
    assert "--device cpu or cuda, or a --profile" in line
    assert not (tmp_path / "run").exists()


def test_without_a_scheduler_a_run_ends(inputs, tmp_path):
    file = tmp_path / "scheduler.json"
    done = runs.call(command(inputs, tmp_path / "run", file, "--device", "cpu", "--queue-timeout", "2"))
    *_, line = done.stderr.splitlines()
    assert done.returncode == 5
    assert line.startswith(f"comir-batch: no scheduler has written its address to {file} within 2 s")
    assert "Traceback" not in done.stderr


def test_a_file_whose_scheduler_is_gone_is_told(inputs, by_hand, tmp_path):
    file, (scheduler,) = by_hand()
    wait_for(file.exists)
    scheduler.kill()
    done = runs.call(command(inputs, tmp_path / "run", file, "--device", "cpu", "--queue-timeout", "2"))
    *_, line = done.stderr.splitlines()
    assert done.returncode == 5
    assert line.startswith(f"comir-batch: the scheduler at {json.loads(file.read_text())['address']} does not answer")
    assert "Traceback" not in done.stderr


def test_without_a_worker_a_run_ends(inputs, by_hand, tmp_path):
    file, _ = by_hand()
    wait_for(file.exists)
    done = runs.call(command(inputs, tmp_path / "run", file, "--device", "cpu", "--queue-timeout", "3"))
    *_, line = done.stderr.splitlines()
    assert done.returncode == 5
    assert line == "comir-batch: no cpu worker came within 3 s; see the workers' logs"
