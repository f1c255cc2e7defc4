"""The lock of a run directory, on file systems whose locks reach everywhere, one machine alone, or are not there."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import time

import pytest

from comir_batch.core.errors import RunDirectoryError
from comir_batch.pipeline import run_lock
from comir_batch.pipeline.run_lock import RunLock

ELSEWHERE = "process 12 on elsewhere"
HERE = f"process 12 on {socket.gethostname()}"
ME = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(run_lock, "_TOUCH_EVERY_S", 0.05)
    monkeypatch.setattr(run_lock, "_SILENCE_S", 0.3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def said():
    return []


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has none."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)


@pytest.fixture
def alive(path):
    """Return a function that makes a holder on another machine, who touches the file until the test ends."""
    end = threading.Event()
    path.write_text(f"{ELSEWHERE}\n")

    def touch():
        while not end.wait(0.02):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    yield
    end.set()
    thread.join()


def test_it_names_its_holder_is_touched_and_given_back(path, said):
    lock = RunLock(path, said.append)
    assert path.read_text() == f"{ME}\n"
    os.utime(path, (0, 0))
    while path.stat().st_mtime == 0:
        time.sleep(0.01)
    lock.check()
    lock.close()
    assert path.read_text() == ""
    RunLock(path, said.append).close()
    assert said == []


def test_after_a_driver_that_was_killed_on_this_machine_nobody_waits(path, said):
    path.write_text(f"{HERE}\n")
    RunLock(path, said.append).close()
    assert said == []


@pytest.mark.usefixtures("alive")
def test_a_driver_that_works_on_another_machine_is_seen_where_locks_do_not_reach(path, said):
    with pytest.raises(RunDirectoryError, match=rf"{path.parent} is in use by {ELSEWHERE}\. "):
        RunLock(path, said.append)
    assert path.read_text() == f"{ELSEWHERE}\n"


@pytest.mark.usefixtures("without_locks", "alive")
def test_it_is_seen_where_there_are_no_locks(path, said):
    with pytest.raises(RunDirectoryError, match=ELSEWHERE):
        RunLock(path, said.append)


@pytest.mark.parametrize("holder", [ELSEWHERE, HERE])
@pytest.mark.usefixtures("without_locks")
def test_a_silent_one_is_taken_for_dead_and_that_is_said(path, said, holder):
    path.write_text(f"{holder}\n")
    RunLock(path, said.append).close()
    assert [text.startswith(holder) for text in said] == [True, True]
    assert "goes on in its place" in said[1]


def test_one_that_was_last_heard_of_long_ago_is_not_waited_for(path, said, monkeypatch):
    monkeypatch.setattr(run_lock, "_SILENCE_S", 1000.0)
    path.write_text(f"{ELSEWHERE}\n")
    os.utime(path, (0, time.time() - 3600))
    RunLock(path, said.append).close()
    assert len(said) == 1


def test_the_lock_holds_after_a_wait(path, said):
    path.write_text(f"{ELSEWHERE}\n")
    lock = RunLock(path, said.append)
    child = os.fork()
    if child == 0:
        try:
            RunLock(path, said.append)
        except RunDirectoryError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    lock.close()


@pytest.mark.usefixtures("without_locks")
def test_whoever_was_taken_for_dead_and_was_not_learns_it_and_leaves_the_file_alone(path, said):
    lock = RunLock(path, said.append)
    path.write_text(f"{ELSEWHERE}\n")
    with pytest.raises(RunDirectoryError, match=f"taken over by {ELSEWHERE}"):
        lock.check()
    lock.close()
    assert path.read_text() == f"{ELSEWHERE}\n"
