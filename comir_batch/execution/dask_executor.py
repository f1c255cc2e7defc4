"""Running tasks on a Dask client, whoever started its workers."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import distributed
import psutil

from comir_batch.core.errors import NoWorkersError, StoppedError
from comir_batch.core.task import Outcome, Resource
from comir_batch.execution.call import run_task
from comir_batch.execution.flight import Flight, Sent
from comir_batch.execution.memory import PeakMemory, allowed_mb
from comir_batch.execution.stop import StopRequest
from comir_batch.execution.workforce import UNTIL, FixedWorkforce, Need, Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from comir_batch.core.task import Task, TaskSource
    from comir_batch.execution.workforce import Workforce

_POLL_S = 0.5


class DaskExecutor:
    """Runs tasks on the workers of a Dask client, one task a slot at a time.

    Workers announce one of the resources ``cpu`` and ``gpu``, and as much of it as they take tasks at once. The
    executor chooses the worker of each task itself: Dask looks at what a worker has in all, not at what is free, and
    keeps no queue for tasks with resources, so that a task behind another would be lost with it.

    Parameters
    ----------
    client : distributed.Client
        A synchronous client.
    workforce : Workforce or None
        Sees to it that there are workers; None for one that waits two minutes for those that somebody else starts.
    stop : StopRequest or None
        Looked at twice a second.
    on_close : callable or None
        Called once by `close`, after the client is closed; closes what this executor owns.
    dashboard : bool
        Whether the scheduler serves one.
    notes : Path or None
        Folder that workers see too, in which one that runs out of memory says so; None for one on this machine.
    """

    def __init__(
        self,
        client: distributed.Client,
        workforce: Workforce | None = None,
        *,
        stop: StopRequest | None = None,
        on_close: Callable[[], None] | None = None,
        dashboard: bool = True,
        notes: Path | None = None,
    ) -> None:
        self._client = client
        self._workforce = workforce or FixedWorkforce(120.0)
        self._stop = stop or StopRequest()
        self._on_close = on_close
        self._has_dashboard = dashboard
        self._notes = notes or Path(tempfile.gettempdir())
        self._token = secrets.token_hex(4)
        self._numbers = count()
        self._closed = False
        self._seats: tuple[Seat, ...] = ()
        self._addresses: frozenset[str] = frozenset()
        self._retiring: set[str] = set()
        self._looked = -_POLL_S
        self._held: deque[Task] = deque()

    @property
    def dashboard(self) -> str:
        """Address of the Dask dashboard; empty if there is none."""
        return str(self._client.dashboard_link or "") if self._has_dashboard else ""

    def run(self, source: TaskSource) -> None:
        """Pull tasks and hand back outcomes, in the calling thread, until the source is finished.

        A task whose worker was lost comes back with ``lost`` set; whether it runs again is the source's decision.

        Raises
        ------
        NoWorkersError
            If a task has waited too long for a worker of its kind, or the scheduler is gone.
        StoppedError
            If a request to stop came; tasks that were not done within its grace are cancelled.
        RuntimeError
            If the source is not finished but offers nothing while nothing runs, which is a fault of the source.
        """
        flight = Flight(self._client, self._workforce.explain, self._largest_mb)
        try:
            while not source.finished:
                self._stop.check()
                self._look(source, flight)
                self._feed(source, flight)
                flight.hand_back(source, _POLL_S)
        except StoppedError:
            flight.land(source, self._stop.grace_s)
            raise
        finally:
            flight.cancel()
            self._held.clear()

    def close(self) -> None:
        """Close the client and what this executor owns; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._client.close()
            for note in self._notes.glob(f"{self._token}-*.out-of-memory"):
                note.unlink(missing_ok=True)
        finally:
            if self._on_close is not None:
                self._on_close()

    def memory_mb(self, resource: Resource) -> int:
        """Return the most memory in MiB that a task of a kind can have; 0 if there is no limit, or no worker yet."""
        self._refresh()
        return self._largest_mb(resource)

    def _largest_mb(self, resource: Resource) -> int:
        return self._workforce.largest_mb(resource, self._seats)

    def _look(self, source: TaskSource, flight: Flight) -> None:
        """See who is there, and let the workforce see to the rest; twice a second, or when a worker was lost."""
        if time.monotonic() - self._looked < _POLL_S and not flight.lost_one:
            return
        flight.lost_one = False
        self._refresh()
        flight.give_up_vanished(source, self._addresses)
        self._retire(flight)
        under_way = [*self._held, *(sent.task for sent in flight.sent)]
        needs = [Need(task.resource, task.memory_mb) for task in under_way]
        needs += [Need(kind, 0) for kind in Resource for _ in range(source.ready(kind))]
        self._workforce.tend(needs, self._seats, {sent.seat.name for sent in flight.sent})

    def _refresh(self) -> None:
        if self._client.status != "running":
            raise NoWorkersError("the connection to the Dask scheduler is lost")
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except OSError as error:
            raise NoWorkersError(f"the connection to the Dask scheduler is lost: {error}") from error
        self._looked = time.monotonic()
        self._addresses = frozenset(workers)
        self._retiring |= {address for address, worker in workers.items() if _is_over(worker)}
        staying = {address: worker for address, worker in workers.items() if address not in self._retiring}
        self._seats = tuple(seat for address, worker in staying.items() for seat in _seats(address, worker))

    def _retire(self, flight: Flight) -> None:
        """Let workers whose time is over go once they have no task; their jobs would be ended with it."""
        idle = self._retiring & self._addresses - set(flight.load())
        if idle:
            self._client.retire_workers(sorted(idle), close_workers=True)

    def _feed(self, source: TaskSource, flight: Flight) -> None:
        self._pull(source, flight)
        refused = self._refuse_too_large(source)
        load = flight.load()
        for _ in range(len(self._held)):
            task = self._held.popleft()
            seat = _best_seat(task, self._seats, load)
            if seat is None:
                self._held.append(task)
            else:
                load[seat.address] += 1
                self._send(task, seat, flight)
        if not refused and not flight and not self._held and not source.finished:
            raise RuntimeError("the task source is not finished, but no task is running and it offers none")

    def _pull(self, source: TaskSource, flight: Flight) -> None:
        """Take tasks for all slots, or one where there are none: it shows that the kind is needed.

        Those that no worker has the memory for are taken on top, lest they keep the others from the workers that there
        are; the workforce sees to larger ones.
        """
        for kind in Resource:
            seats = [seat for seat in self._seats if seat.kind is kind]
            taken = [*self._held, *(sent.task for sent in flight.sent)]
            room = max(sum(seat.slots for seat in seats), 1)
            room -= sum(task.resource is kind and _fits_somewhere(task, seats) for task in taken)
            while room > 0 and (task := source.next_task(kind)) is not None:
                self._held.append(task)
                room -= _fits_somewhere(task, seats)

    def _refuse_too_large(self, source: TaskSource) -> bool:
        """Hand back the tasks that no worker can ever have the memory for; return whether there were any."""
        limits = {kind: self._largest_mb(kind) for kind in Resource}
        refused = [task for task in self._held if 0 < limits[task.resource] < task.memory_mb]
        for task in refused:
            self._held.remove(task)
            source.handle(_too_large(task, limits[task.resource]))
        return bool(refused)

    def _send(self, task: Task, seat: Seat, flight: Flight) -> None:
        # A key is used once: Dask would answer a second use, even another driver's, with the first one's future.
        key = f"{task.key}-{self._token}-{next(self._numbers)}"
        # A worker's memory is measured as a whole: what it had in hand besides was lost for the same reason.
        port = seat.address.rsplit(":", 1)[-1]
        note = self._notes / f"{self._token}-{seat.name}-{port}.out-of-memory"
        future = self._client.submit(
            _run_on_worker,
            task,
            str(note),
            seat.memory_mb,
            key=key,
            workers=[seat.address],
            resources={task.resource: 1},
            pure=False,
            retries=0,
        )
        flight.add(future, Sent(task, seat, note))


def _run_on_worker(task: Task, note: str, share_mb: int) -> Outcome:
    worker = distributed.get_worker()
    limit_mb = allowed_mb(int(worker.memory_manager.memory_limit or 0) // 2**20)
    memory = PeakMemory(limit_mb, partial(_end_process, Path(note), share_mb or limit_mb))
    return run_task(task, str(worker.name), memory, limit_mb)


def _end_process(note: Path, limit_mb: int, peak_mb: int) -> None:
    """Leave a note and end this process, before the kernel or SLURM ends everything; its nanny starts another."""
    with suppress(OSError):
        partial_note = note.with_name(note.name + ".partial")
        partial_note.write_text(json.dumps({"peak_mb": peak_mb, "limit_mb": limit_mb}), encoding="utf-8")
        partial_note.replace(note)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    os._exit(1)


def _seats(address: str, worker: dict[str, Any]) -> Iterable[Seat]:
    if worker.get("status") != "running":
        return
    for kind in Resource:
        slots = int(worker["resources"].get(kind, 0))
        if slots > 0:
            memory_mb = int(worker["memory_limit"] or 0) // 2**20 // slots
            yield Seat(str(worker["name"]), address, kind, slots, memory_mb)


def _is_over(worker: dict[str, Any]) -> bool:
    until: float = worker["resources"].get(UNTIL, float("inf"))
    return time.time() > until


def _fits(task: Task, seat: Seat) -> bool:
    return seat.kind is task.resource and (not seat.memory_mb or task.memory_mb <= seat.memory_mb)


def _fits_somewhere(task: Task, seats: Sequence[Seat]) -> bool:
    """Return whether a task fits a seat, or there are none to tell."""
    return not seats or any(_fits(task, seat) for seat in seats)


def _best_seat(task: Task, seats: Iterable[Seat], load: dict[str, int]) -> Seat | None:
    """Return the smallest worker that has room and memory for a task, of equal ones that with the fewest tasks."""
    fit = [seat for seat in seats if _fits(task, seat) and load[seat.address] < seat.slots]
    return min(fit, key=lambda seat: (seat.memory_mb, load[seat.address]), default=None)


def _too_large(task: Task, limit_mb: int) -> Outcome:
    remedy = "use fewer workers, or give each more memory (execution.memory_gb, max_memory_gb of the profile)"
    return Outcome(task.key, error=f"needs up to {task.memory_mb} MB but a worker has {limit_mb} MB: {remedy}")
