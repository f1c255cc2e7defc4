"""Whoever sees to it that there are workers; the executor says what it needs and asks why one was lost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from comir_batch.core.errors import NoWorkersError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from comir_batch.core.task import Resource

# As a Dask resource: the time, in seconds since the epoch, from which a worker is given no more tasks.
UNTIL = "until"
_SILENT_S, _SAY_EVERY_S = 30.0, 300.0
TOLD = "the worker's job was told to end"
LOST = "the worker was lost: killed, out of memory, or its machine gone"


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker that takes tasks.

    Attributes
    ----------
    name, address : str
        As the Dask scheduler knows it.
    kind : Resource
        Of the tasks that it takes.
    slots : int
        Tasks that it takes at once.
    memory_mb : int
        Memory that each of them has, in MiB; 0 for no limit.
    """

    name: str
    address: str
    kind: Resource
    slots: int
    memory_mb: int


class Need(NamedTuple):
    """A task that runs or could run now: its kind and the memory in MiB that it may take."""

    kind: Resource
    memory_mb: int


class Loss(NamedTuple):
    """Why a worker was lost, as far as is known; see `Outcome` for the two flags."""

    reason: str = LOST
    blameless: bool = False
    out_of_memory: bool = False


class Workforce(Protocol):
    """The workers' keeper; all methods are called from the executor's thread."""

    def largest_mb(self, kind: Resource, seats: Collection[Seat]) -> int:
        """Return the most memory in MiB that a task of a kind can have; 0 for no limit or not known."""

    def tend(self, needs: Sequence[Need], seats: Collection[Seat], busy: Collection[str]) -> None:
        """See to it that there are workers for the needs; called about twice a second.

        Parameters
        ----------
        needs : sequence of Need
            Tasks that run, and that wait for a worker.
        seats : collection of Seat
            Workers that there are.
        busy : collection of str
            Names of those that have a task.

        Raises
        ------
        NoWorkersError
            If there are none for a need and none will come.
        """

    def explain(self, worker: str) -> Loss:
        """Return why a worker of that name was lost."""


class FixedWorkforce:
    """Workers that somebody else starts, and starts again.

    Parameters
    ----------
    timeout_s : float
        How long a task waits for a first, or a new, worker of its kind.
    farewell : callable or None
        Names the file that a worker makes when it is told to end; None where they make none.
    say : callable or None
        Takes sentences for the user.
    strangers : callable or None
        Counts the workers that are connected, of use or not.
    start_timeout_s : float
        How long workers may be connected of which none takes tasks.
    """

    def __init__(
        self,
        timeout_s: float,
        farewell: Callable[[str], Path] | None = None,
        say: Callable[[str], object] | None = None,
        *,
        strangers: Callable[[], int] | None = None,
        start_timeout_s: float = float("inf"),
    ) -> None:
        self._timeout_s, self._farewell, self._say = timeout_s, farewell, say
        self._strangers, self._start_timeout_s = strangers, start_timeout_s
        self._said = float("-inf")
        self._absent_since: dict[Resource, float] = {}

    def largest_mb(self, kind: Resource, seats: Collection[Seat]) -> int:
        """Return the memory of the largest worker that there is."""
        sizes = [seat.memory_mb for seat in seats if seat.kind is kind]
        return 0 if 0 in sizes else max(sizes, default=0)

    def tend(self, needs: Sequence[Need], seats: Collection[Seat], busy: Collection[str]) -> None:
        """Raise NoWorkersError when a kind that is needed has been without a worker for too long."""
        present = {seat.kind for seat in seats}
        absent = {need.kind for need in needs} - present
        now = time.monotonic()
        self._absent_since = {kind: self._absent_since.get(kind, now) for kind in absent}
        waited = now - min(self._absent_since.values(), default=now)
        if self._say is not None and waited > _SILENT_S and now - self._said > _SAY_EVERY_S:
            self._said = now
            self._say(f"no {' and '.join(sorted(absent))} worker is connected; waiting for one")
        if (
            not seats
            and waited > self._start_timeout_s
            and self._strangers is not None
            and (there := self._strangers())
        ):
            raise NoWorkersError(
                f"of {there} connected {'worker' if there == 1 else 'workers'} none announces cpu or gpu tasks: start "
                "them by python -m comir_batch.execution.worker"
            )
        if not busy and any(now - since > self._timeout_s for since in self._absent_since.values()):
            kinds = " and ".join(sorted(absent))
            raise NoWorkersError(f"no {kinds} worker came within {self._timeout_s:g} s; see the workers' logs")

    def explain(self, worker: str) -> Loss:
        """Return whether the worker was told to end; nothing else is known here."""
        if self._farewell is not None and self._farewell(worker).exists():
            return Loss(TOLD, blameless=True)
        return Loss()
