"""Memory of a task: how much it takes, how much it may take, and its end before others are ended with it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

_SAMPLE_EVERY_S = 0.2
_MIB = 2**20
_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 2**50  # cgroup v1 writes "no limit" as a number close to 2**63
_TOLERATED = 0.95


class PeakMemory:
    """Highest resident memory of this process and its children while the block runs, sampled five times a second.

    Pages that processes share count once for each of them, as in the operating system's own figures.

    Parameters
    ----------
    limit_mb : int
        What they may take; 0 for no limit.
    on_excess : callable or None
        Called in the sampling thread, with the memory in MiB, when they take more than 95 % of the limit.
    """

    def __init__(self, limit_mb: int = 0, on_excess: Callable[[int], object] | None = None) -> None:
        self._process = psutil.Process()
        self._limit = _TOLERATED * limit_mb * _MIB
        self._on_excess = on_excess
        self._peak = self._held = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @property
    def peak_mb(self) -> int:
        """Highest sum seen so far, in MB (10^6 bytes), as tasks are sized; limits are in MiB."""
        return round(self._peak / 1e6)

    @property
    def held_mb(self) -> int:
        """What they had when the block was entered, in MB."""
        return round(self._held / 1e6)

    def __enter__(self) -> Self:
        self._sample()
        self._held = self._peak
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_EVERY_S):
            self._sample()
            if 0 < self._limit < self._peak and self._on_excess is not None:
                self._on_excess(self._peak // _MIB)
                return

    def _sample(self) -> None:
        processes = [self._process, *self._process.children(recursive=True)]
        self._peak = max(self._peak, sum(map(_resident, processes)))


def allowed_mb(limit_mb: int) -> int:
    """Return the smaller of a limit in MiB (0 for none) and those of the control groups that this process is in."""
    limits = [limit_mb, *(size // _MIB for size in _cgroup_limits())]
    return min((limit for limit in limits if limit > 0), default=0)


def _cgroup_limits() -> Iterator[int]:
    """Yield the limits in bytes, of both versions of control groups, from this process's own group upwards."""
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield from _limits(_CGROUPS, group, "memory.max")
            yield from _limits(_CGROUPS / "unified", group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(_CGROUPS / "memory", group, "memory.limit_in_bytes")


def _limits(mount: Path, group: str, name: str) -> Iterator[int]:
    folder = mount / group.lstrip("/")
    while folder != mount.parent:
        try:
            limit = int((folder / name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # the root has no such file; "max"
            limit = _UNLIMITED
        if limit < _UNLIMITED:
            yield limit
        folder = folder.parent


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended since it was listed
        return 0
