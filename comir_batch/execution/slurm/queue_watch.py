"""The queue as it was last read, by a thread of its own, so that a slow controller holds nothing up."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.commands import SlurmError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.execution.slurm.commands import QueuedJob


class Snapshot(NamedTuple):
    """The queue as it was read, beginning at some time of the monotonic clock."""

    jobs: Mapping[str, QueuedJob]
    read: float


class QueueWatch:
    """Reads the queue in a thread of its own, so that a slow controller holds nothing up.

    Parameters
    ----------
    job_name : str
        Of the jobs that are looked for.
    poll_s : float
        How often.
    """

    def __init__(self, job_name: str, poll_s: float) -> None:
        self._job_name, self._poll_s = job_name, poll_s
        self._latest = Snapshot({}, float("-inf"))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="slurm-queue", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Snapshot:
        """The queue as it was last read; an old one where the controller does not answer."""
        return self._latest

    def close(self) -> None:
        """Look no more."""
        self._end.set()

    def _watch(self) -> None:
        while True:
            read = time.monotonic()
            with suppress(SlurmError):  # the controller is away; until it comes back nothing is concluded
                self._latest = Snapshot(commands.queue([self._job_name]), read)
            if self._end.wait(self._poll_s):
                return
