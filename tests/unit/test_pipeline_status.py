"""How a run stands is read from its files while another process may be writing them; stopping one from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.events import Event, Kind
from comir_batch.pipeline.cancel import cancel
from comir_batch.pipeline.event_log import EventLog
from comir_batch.pipeline.files import write_json
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run_lock import holder
from comir_batch.pipeline.status import StageStatus, as_json, read_status

# A driver, as far as its lock goes; it ends when the file `cancel` appears, unless it is told to be stubborn.
DRIVER = """
import sys, time
from pathlib import Path
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run_lock import RunLock
layout = Layout(Path(sys.argv[1]))
lock = RunLock(layout.lock, print)
print("holds", flush=True)
while sys.argv[2] == "stubborn" or not layout.cluster.cancel.exists():
    time.sleep(0.02)
lock.close()
"""
TAKES_IT_AGAIN_AND_AGAIN = """
import fcntl, sys
print("starts", flush=True)
for _ in range(8000):
    with open(sys.argv[1], "a") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


@pytest.fixture
def layout(tmp_path):
    made = Layout(tmp_path.resolve() / "run")
    made.root.mkdir()
    execution = {"executor": "local"}
    pairs = [{"pair_id": "p1"}, {"pair_id": "p2"}]
    write_json(
        made.run_json,
        {"command": ["comir-batch", "run", "my m.csv"], "config": {"execution": execution}} | {"pairs": pairs},
    )
    return made


@pytest.fixture
def driver(layout):
    """Return a function that starts a process which holds the run's lock."""
    started = []

    def start(kind="obedient"):
        words = [sys.executable, "-c", DRIVER, str(layout.root), kind]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "holds\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def tell(layout):
    """Return a function that logs an event of the job `warp-1` of p1."""
    log = EventLog(layout.log)

    def publish(kind, stage="warp", job="warp-1", pairs=("p1",), **data):
        log(Event(kind, stage, pairs, job, data))

    return publish


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        read_status(tmp_path)


def test_a_run_that_waits_for_its_first_driver_is_one(tmp_path):
    layout = Layout(tmp_path.resolve())
    layout.cluster.folder.mkdir()
    status = read_status(layout.root)
    assert (status.running, status.since, status.pairs, status.last) == (False, 0.0, 0, None)


def test_who_holds_the_lock_is_told_until_he_dies(layout, driver):
    assert holder(layout.lock) == ""
    process = driver("stubborn")
    assert holder(layout.lock).startswith(f"process {process.pid} on ")
    assert read_status(layout.root).running
    process.kill()
    process.wait()
    assert holder(layout.lock) == ""


def test_a_holder_on_another_machine_is_alive_while_it_touches_the_lock(layout):
    layout.lock.write_text("process 12 on elsewhere\n")
    assert holder(layout.lock) == "process 12 on elsewhere"
    os.utime(layout.lock, (0, time.time() - 3600))
    assert holder(layout.lock) == ""


def test_to_ask_for_the_holder_never_keeps_a_driver_from_the_lock(layout):
    words = [sys.executable, "-c", TAKES_IT_AGAIN_AND_AGAIN, str(layout.lock)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while process.poll() is None:
            holder(layout.lock)
    assert process.returncode == 0


def test_tasks_are_counted_over_phases_restarts_and_drivers(layout, tell):
    tell(Kind.JOB_STARTED, fresh=True)
    tell(Kind.TASKS_PLANNED, tasks=1)
    tell(Kind.TASK_DONE)
    tell(Kind.TASKS_PLANNED, tasks=9)
    tell(Kind.TASK_DONE)
    assert read_status(layout.root).stages == (StageStatus("warp", 2, 10),)
    tell(Kind.JOB_STARTED, fresh=False)  # by the next driver, which knows of the two tasks
    tell(Kind.TASKS_PLANNED, tasks=8)
    assert read_status(layout.root).stages == (StageStatus("warp", 2, 10),)
    tell(Kind.JOB_STARTED, fresh=True)
    tell(Kind.TASKS_PLANNED, tasks=1)
    assert read_status(layout.root).stages == (StageStatus("warp", 0, 1),)


def test_verdicts_and_errors_last_until_their_job_is_begun_anew(layout, tell):
    tell(Kind.JOB_FAILED, message="the disk is gone")
    tell(Kind.PAIR_DONE, verdict="error", reasons=[])
    tell(Kind.PAIR_DONE, pairs=("p2",), verdict="accept", reasons=[])
    status = read_status(layout.root)
    assert status.errors == ("warp of p1: the disk is gone",)
    assert (status.pairs, status.pairs_done, status.verdicts) == (2, 2, {"accept": 1, "error": 1})
    tell(Kind.JOB_STARTED, fresh=True)
    status = read_status(layout.root)
    assert (status.errors, status.pairs_done, status.verdicts) == ((), 1, {"accept": 1})


def test_the_dashboard_is_that_of_the_driver_that_runs(layout, tell, driver):
    tell(Kind.RUN_STARTED, jobs=1)
    tell(Kind.DASHBOARD, address="http://127.0.0.1:1/status", tunnel="ssh there")
    assert read_status(layout.root).dashboard == ""
    driver()
    assert read_status(layout.root).tunnel == "ssh there"
    tell(Kind.RUN_STARTED, jobs=1)
    assert read_status(layout.root).tunnel == ""


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_line_that_is_not_whole_is_passed_over(layout, tell, end):
    tell(Kind.JOB_STARTED, fresh=True)
    tell(Kind.TASKS_PLANNED, tasks=2)
    with layout.log.open("a") as stream:
        stream.write('{"kind": "task_done", "stage": "wa' + end)
    assert read_status(layout.root).stages == (StageStatus("warp", 0, 2),)
    tell(Kind.TASK_DONE)  # on the same line, if the writer of the torn one was killed
    tell(Kind.TASK_DONE)
    assert read_status(layout.root).last.kind is Kind.TASK_DONE


def test_it_can_be_had_as_json(layout, tell):
    tell(Kind.TASKS_PLANNED, tasks=2)
    plain = json.loads(json.dumps(as_json(read_status(layout.root))))
    assert plain["pairs"] == {"all": 2, "done": 0, "verdicts": {}}
    assert plain["tasks"] == {"warp": {"done": 0, "planned": 2}}
    assert plain["last_event"]["kind"] == "tasks_planned"
    assert (plain["running"], plain["jobs"]) == (False, [])


def test_a_driver_is_asked_to_stop_and_waited_for(layout, driver):
    process, said = driver(), []
    stopped = cancel(layout.root, said.append)
    assert process.wait(10) == 0
    assert stopped.driver.startswith(f"process {process.pid} on ")
    assert (stopped.jobs, stopped.resume) == (0, "comir-batch run 'my m.csv'")
    assert stopped.driver in said[0]
    assert not layout.cluster.cancel.exists()


def test_a_driver_that_does_not_stop_is_named(layout, driver):
    process = driver("stubborn")
    with pytest.raises(RunDirectoryError, match=f"process {process.pid} on .* has not stopped within 0.1 s"):
        cancel(layout.root, print, patience_s=0.1)


def test_nothing_is_asked_where_nothing_runs(layout):
    said = []
    assert cancel(layout.root, said.append).driver == ""
    assert not said
    assert not layout.cluster.cancel.exists()


def test_a_rendered_run_is_resumed_by_its_script(layout):
    write_json(layout.cluster.rendered, {"folder": "/my jobs"})
    assert cancel(layout.root, print).resume == "sh '/my jobs/submit.sh'"
