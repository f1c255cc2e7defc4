"""Running tasks on a Dask client, whoever started its workers."""

from __future__ import annotations

import queue
import secrets
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import distributed
from distributed.client import FutureCancelledError

from comir_batch.core.errors import NoWorkersError, StoppedError
from comir_batch.core.task import Outcome, Resource
from comir_batch.execution.call import run_task
from comir_batch.execution.stop import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from distributed import Future

    from comir_batch.core.task import Task, TaskSource

_POLL_S = 0.5
_GATHER_S = 15.0
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Capacity:
    """Workers of one resource kind: how many tasks they take at once, and the least memory that one of them has."""

    slots: int
    memory_mb: int


class DaskExecutor:
    """Runs tasks on the workers of a Dask client, one task a slot at a time.

    Every task asks for one unit of its resource kind, ``cpu`` or ``gpu``, so workers must announce one of the two. No
    more tasks are sent than there are slots: Dask keeps no queue for tasks with resources, and a task behind
    another on a worker that dies would be lost with it.

    Parameters
    ----------
    client : distributed.Client
        A synchronous client.
    stop : StopRequest or None
        Looked at twice a second.
    on_close : callable or None
        Called once by `close`, after the client is closed; closes what this executor owns.
    dashboard : bool
        Whether the scheduler serves one.
    workers_timeout_s : float
        How long a task waits for a first, or a new, worker of its kind.
    """

    def __init__(
        self,
        client: distributed.Client,
        *,
        stop: StopRequest | None = None,
        on_close: Callable[[], None] | None = None,
        dashboard: bool = True,
        workers_timeout_s: float = 120.0,
    ) -> None:
        self._client = client
        self._stop = stop or StopRequest()
        self._on_close = on_close
        self._has_dashboard = dashboard
        self._workers_timeout_s = workers_timeout_s
        self._token = secrets.token_hex(4)
        self._numbers = count()
        self._closed = False

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
            If a request to stop came; tasks that were not done within two seconds of it are cancelled.
        RuntimeError
            If the source is not finished but offers nothing while nothing runs, which is a fault of the source.
        """
        flight = _Flight(self._client, self._submit)
        absent_since: dict[Resource, float] = {}
        try:
            while not source.finished:
                self._stop.check()
                self._feed(source, flight, absent_since)
                flight.hand_back(source, _POLL_S)
        except StoppedError:
            flight.land(source, _GRACE_S)
            raise
        finally:
            flight.cancel()

    def close(self) -> None:
        """Close the client and what this executor owns; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:
            self._client.close()
        finally:
            if self._on_close is not None:
                self._on_close()

    def memory_mb(self, resource: Resource) -> int:
        """Return the memory in MB of the smallest worker of a kind; 0 if there is no limit, or no worker yet."""
        return self._capacities()[resource].memory_mb

    def _feed(self, source: TaskSource, flight: _Flight, absent_since: dict[Resource, float]) -> None:
        capacities = self._capacities()
        refused = False
        for kind in Resource:
            capacity = capacities[kind]
            # Without workers one task is taken all the same: it shows that the kind is needed.
            while flight.count(kind) < max(capacity.slots, 1) and (task := source.next_task(kind)) is not None:
                if 0 < capacity.memory_mb < task.memory_mb:
                    source.handle(_too_large(task, capacity.memory_mb))
                    refused = True
                else:
                    flight.send(task)
            self._check_workers(kind, absent_since, needed=flight.count(kind) > 0 and capacity.slots == 0)
        if not refused and not flight and not source.finished:
            raise RuntimeError("the task source is not finished, but no task is running and it offers none")

    def _check_workers(self, kind: Resource, absent_since: dict[Resource, float], *, needed: bool) -> None:
        if not needed:
            absent_since.pop(kind, None)
        elif time.monotonic() - absent_since.setdefault(kind, time.monotonic()) > self._workers_timeout_s:
            raise NoWorkersError(
                f"no {kind} worker came within {self._workers_timeout_s:g} s; see the workers' logs for the reason"
            )

    def _capacities(self) -> dict[Resource, _Capacity]:
        if self._client.status != "running":
            raise NoWorkersError("the connection to the Dask scheduler is lost")
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        except OSError as error:
            raise NoWorkersError(f"the connection to the Dask scheduler is lost: {error}") from error
        return {kind: _capacity(kind, workers) for kind in Resource}

    def _submit(self, task: Task) -> Future[Any]:
        # A key is used once: Dask would answer a second use, even another driver's, with the first one's future.
        key = f"{task.key}-{self._token}-{next(self._numbers)}"
        return self._client.submit(_run_on_worker, task, key=key, resources={task.resource: 1}, pure=False, retries=0)


class _Flight:
    """The tasks that were sent and have not come back."""

    def __init__(self, client: distributed.Client, submit: Callable[[Task], Future[Any]]) -> None:
        self._client = client
        self._submit = submit
        self._tasks: dict[Future[Any], Task] = {}
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def count(self, kind: Resource) -> int:
        return sum(task.resource is kind for task in self._tasks.values())

    def send(self, task: Task) -> None:
        future = self._submit(task)
        self._tasks[future] = task
        future.add_done_callback(self._done.put)

    def hand_back(self, source: TaskSource, timeout_s: float) -> None:
        """Wait for an outcome, then hand back all that have come."""
        if not self:
            return
        try:
            source.handle(self._outcome(self._done.get(timeout=timeout_s)))
            while True:
                source.handle(self._outcome(self._done.get_nowait()))
        except queue.Empty:
            return

    def land(self, source: TaskSource, grace_s: float) -> None:
        """Hand back what is done within the grace."""
        end = time.monotonic() + grace_s
        while self and time.monotonic() < end:
            self.hand_back(source, max(end - time.monotonic(), 0.0))

    def cancel(self) -> None:
        """Cancel what has not come back."""
        if self and self._client.status == "running":
            self._client.cancel(list(self._tasks), force=True)
        self._tasks.clear()

    def _outcome(self, future: Future[Any]) -> Outcome:
        task = self._tasks.pop(future)
        try:
            outcome: Outcome = future.result(timeout=_GATHER_S)
        except (distributed.KilledWorker, FutureCancelledError, distributed.TimeoutError, OSError) as failure:
            reason = "the worker was lost: killed, out of memory, or its machine gone"
            outcome = Outcome(task.key, error=reason, detail=repr(failure), lost=True)
        except Exception as failure:  # noqa: BLE001  for example a payload that cannot be unpickled over there
            outcome = Outcome(task.key, error=f"internal error: the task could not be called: {failure!r}")
        future.release()
        return outcome


def _run_on_worker(task: Task) -> Outcome:
    return run_task(task, worker=str(distributed.get_worker().name))


def _capacity(kind: Resource, workers: Iterable[dict[str, Any]]) -> _Capacity:
    mine = [worker for worker in workers if worker["resources"].get(kind, 0) >= 1]
    limits = [int(worker["memory_limit"]) // 2**20 for worker in mine if worker["memory_limit"]]
    return _Capacity(sum(int(worker["resources"][kind]) for worker in mine), min(limits, default=0))


def _too_large(task: Task, limit_mb: int) -> Outcome:
    remedy = "use fewer workers, or give each more memory (execution.memory_gb)"
    return Outcome(task.key, error=f"needs up to {task.memory_mb} MB but a worker has {limit_mb} MB: {remedy}")
