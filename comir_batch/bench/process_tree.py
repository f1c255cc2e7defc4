"""What a program takes, with all processes that it starts."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from comir_batch.core.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LOOK_EVERY_S = 0.1
_LINES = 5


@dataclass(frozen=True, slots=True)
class Taken:
    """What a program took.

    Attributes
    ----------
    cpu_s, wall_s : float
        CPU seconds of all its processes, without what each spends in its last tenth of a second, and by the clock.
    peak_mb : float
        Most memory of all of them at a time, 10^6 bytes; pages that processes share count once.
    """

    cpu_s: float
    wall_s: float
    peak_mb: float


def run_measured(command: Sequence[str], log: Path) -> Taken:
    """Run a program to its end, and look at its processes ten times a second.

    Parameters
    ----------
    command : sequence of str
        What to run.
    log : Path
        Takes what it prints.

    Raises
    ------
    TaskError
        If it cannot be started, or ends with an error; with the last lines that it printed.
    """
    began, spent, peak = time.perf_counter(), dict[tuple[int, float], float](), 0
    with log.open("wb") as stream:
        try:
            child = subprocess.Popen(list(command), stdout=stream, stderr=subprocess.STDOUT)  # noqa: S603  the user's own
        except OSError as error:
            raise TaskError(f"{command[0]} cannot be started: {error.strerror}") from error
        try:
            while child.poll() is None:
                peak = max(peak, _look(child.pid, spent))
                time.sleep(_LOOK_EVERY_S)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode:
        last = " / ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:])
        raise TaskError(f"{command[0]} ended with {child.returncode}: {last}")
    return Taken(sum(spent.values()), time.perf_counter() - began, peak / 1e6)


def _look(pid: int, spent: dict[tuple[int, float], float]) -> int:
    """Note the CPU seconds of each process of the tree so far, and return the memory of all in bytes."""
    memory = 0
    for process in _tree(pid):
        try:
            with process.oneshot():
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = times.user + times.system
            memory += process.memory_full_info().pss
        except psutil.Error:  # it ended since it was listed
            continue
    return memory


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
