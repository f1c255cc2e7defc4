"""Killed or stopped at any moment, the same command goes on, and its result is that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import psutil
import pytest
import runs

pytestmark = pytest.mark.slow

MOMENTS = [
    ("task_done", "chunk", 2),
    ("job_started", "register", 1),
    ("task_done", "warp", 2),
    ("task_done", "export", 1),
    ("job_started", "report", 1),
]


def test_kill_9_at_any_moment_costs_only_the_task_under_way(slides, undisturbed, tmp_path):
    out = tmp_path / "run"
    words = runs.command(slides / "manifest.csv", out, "--ome-tiff")
    for number, moment in enumerate(MOMENTS):
        started = runs.Started(words, tmp_path / f"{number}.log")
        started.wait_until(runs.happened(out, *moment))
        started.kill()
    done = runs.call(words)
    assert done.returncode == 0, done.stderr
    assert max(Counter(runs.tasks(out)).values()) == 1, "a finished task was run again"
    assert sorted(runs.tasks(out)) == sorted(runs.tasks(undisturbed))
    runs.assert_same_result(out, undisturbed)
    assert (out / "pairs" / "p1" / "aligned.ome.tif").is_file()
    assert runs.results(out)["p1"]["verdict"] == "accept"
    assert not runs.leftovers(out)


def test_nothing_outlives_a_killed_driver(slides, tmp_path):
    started = runs.Started(runs.command(slides / "manifest.csv", tmp_path / "run"), tmp_path / "log")
    started.wait_until(lambda: any("elastix_child" in " ".join(_words(each)) for each in started.family()))
    family = started.family()
    started.process.kill()
    started.process.wait()
    gone, alive = psutil.wait_procs(family, timeout=30)
    assert len(gone) >= 3
    assert not alive


def test_a_killed_worker_is_replaced_and_its_task_tried_again(copied, slides, tmp_path):
    since = len(runs.lines(copied / "records.jsonl"))
    changed = {"register": {"seed": 5}, "execution": {"workers": 1}}
    started = runs.Started(runs.command(slides / "manifest.csv", copied, **changed), tmp_path / "log")
    started.wait_until(runs.happened(copied, "job_started", "register"))
    started.wait_until(lambda: any("elastix_child" in " ".join(_words(each)) for each in started.family()))
    (child,) = [each for each in started.family() if "elastix_child" in " ".join(_words(each))]
    child.parent().kill()
    assert started.process.wait(300) == 0, started.log.read_text()
    assert "is tried again, the worker was lost" in started.log.read_text()
    assert Counter(runs.tasks(copied, since))[_key(copied, since, "register")] == 1
    assert runs.results(copied)["p1"]["verdict"] == "accept"


@pytest.mark.parametrize(
    ("number", "code", "send"),
    [(signal.SIGINT, 130, os.killpg), (signal.SIGTERM, 143, os.kill), (signal.SIGHUP, 129, os.killpg)],
)
def test_a_signal_stops_in_order_and_leaves_no_process(copied, slides, tmp_path, number, code, send):
    """A terminal tells all processes of Ctrl-C and its end, while elastix still loads; others tell the driver alone."""
    since = len(runs.lines(copied / "records.jsonl"))
    words = runs.command(slides / "manifest.csv", copied, register={"iterations": 5000})
    started = runs.Started(words, tmp_path / "log")
    started.wait_until(runs.happened(copied, "job_started", "register"))
    started.wait_until(lambda: any("elastix_child" in " ".join(_words(each)) for each in started.family()))
    family = started.family()
    began = time.monotonic()
    send(started.process.pid, number)
    assert started.process.wait(60) == code
    assert time.monotonic() - began < 30
    last = started.log.read_text().splitlines()[-1]
    assert last == "comir-batch: stopped before the end; the same command resumes the run"
    assert "Traceback" not in started.log.read_text()
    assert not psutil.wait_procs(family, timeout=5)[1]
    assert "failed" not in {line["kind"] for line in runs.lines(copied / "records.jsonl")[since:]}


def test_a_second_driver_is_refused_while_the_first_one_works(copied, slides, tmp_path):
    words = runs.command(slides / "manifest.csv", copied, register={"iterations": 5000})
    started = runs.Started(words, tmp_path / "log")
    started.wait_until(runs.happened(copied, "job_started", "register"))
    second = runs.call(words)
    started.kill()
    assert second.returncode == 3
    (line,) = second.stderr.splitlines()
    assert f"{copied} is in use by process {started.process.pid}" in line


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _key(out, since, stage):
    (key,) = {key for key in runs.tasks(out, since) if key.startswith(stage)}
    return key
