"""CPU time of a task, that of the processes which it keeps busy included."""

from __future__ import annotations

import psutil


class CpuTime:
    """CPU time of this process and its children since the clock was made.

    Children that ended meanwhile count as soon as they are waited for. Where a worker has several tasks in hand (slots
    of a GPU), each of them counts what all spend.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._total()

    @property
    def seconds(self) -> float:
        """User and system time, of all threads."""
        return max(self._total() - self._before, 0.0)

    def _total(self) -> float:
        return sum(_spent(process) for process in (self._process, *self._process.children(recursive=True)))


def _spent(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:  # it ended since it was listed
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
