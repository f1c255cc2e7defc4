"""The tasks that were sent to Dask workers and have not come back."""

from __future__ import annotations

import json
import queue
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import distributed
from distributed.client import FutureCancelledError

from comir_batch.core.task import Outcome, Task
from comir_batch.execution.workforce import Loss, Seat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from distributed import Future

    from comir_batch.core.task import Resource, TaskSource

_GATHER_S = 15.0
_VANISHED_S = 5.0


class Sent(NamedTuple):
    """A task and the worker that has it; the worker leaves a note at `note` if it ends for want of memory."""

    task: Task
    seat: Seat
    note: Path


class Flight:
    """What is under way.

    Parameters
    ----------
    client : distributed.Client
        A synchronous client.
    explain : callable
        Tells why the worker of a name was lost.
    largest_mb : callable
        Tells the most memory in MiB that a task of a kind can have; 0 for no limit.

    Attributes
    ----------
    lost_one : bool
        Whether a worker was lost since this was last set to False.
    """

    def __init__(
        self, client: distributed.Client, explain: Callable[[str], Loss], largest_mb: Callable[[Resource], int]
    ) -> None:
        self._client, self._explain, self._largest_mb = client, explain, largest_mb
        self._sent: dict[Future[Any], Sent] = {}
        self._done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        self._gone_since: dict[str, float] = {}
        self.lost_one = False

    def __bool__(self) -> bool:
        return bool(self._sent)

    @property
    def sent(self) -> list[Sent]:
        """What has not come back."""
        return list(self._sent.values())

    def load(self) -> Counter[str]:
        """Return the number of tasks of each worker, by its address."""
        return Counter(sent.seat.address for sent in self._sent.values())

    def add(self, future: Future[Any], sent: Sent) -> None:
        """Wait for one more."""
        self._sent[future] = sent
        future.add_done_callback(self._done.put)

    def hand_back(self, source: TaskSource, timeout_s: float) -> None:
        """Wait for an outcome, then hand back all that have come."""
        if not self:
            time.sleep(timeout_s)
            return
        try:
            self._hand_one(source, self._done.get(timeout=timeout_s))
            while True:
                self._hand_one(source, self._done.get_nowait())
        except queue.Empty:
            return

    def land(self, source: TaskSource, grace_s: float) -> None:
        """Hand back what is done within the grace."""
        end = time.monotonic() + grace_s
        while self and time.monotonic() < end:
            self.hand_back(source, max(end - time.monotonic(), 0.0))

    def give_up_vanished(self, source: TaskSource, addresses: Collection[str]) -> None:
        """Hand back as lost what was sent to workers that are gone, and that Dask would keep for their return."""
        now = time.monotonic()
        gone = {sent.seat.address for sent in self._sent.values()} - set(addresses)
        self._gone_since = {address: self._gone_since.get(address, now) for address in gone}
        over = {address for address, since in self._gone_since.items() if now - since > _VANISHED_S}
        for future, sent in list(self._sent.items()):
            if sent.seat.address in over:
                del self._sent[future]
                self._client.cancel([future], force=True)
                # Had the worker begun with it, Dask would have said that it was killed.
                source.handle(Outcome(sent.task.key, error="its worker left", lost=True, blameless=True))

    def cancel(self) -> None:
        """Cancel what has not come back."""
        if self and self._client.status == "running":
            self._client.cancel(list(self._sent), force=True)
        self._sent.clear()

    def _hand_one(self, source: TaskSource, future: Future[Any]) -> None:
        sent = self._sent.pop(future, None)
        if sent is None:  # it was given up
            return
        outcome = self._outcome(future, sent)
        if outcome.lost:
            outcome = replace(outcome, most_mb=self._largest_mb(sent.task.resource))
        source.handle(outcome)

    def _outcome(self, future: Future[Any], sent: Sent) -> Outcome:
        try:
            outcome: Outcome = future.result(timeout=_GATHER_S)
        except (distributed.KilledWorker, FutureCancelledError, distributed.TimeoutError, OSError) as failure:
            outcome = self._lost(sent, repr(failure))
        except Exception as failure:  # noqa: BLE001  for example a payload that cannot be unpickled over there
            outcome = Outcome(sent.task.key, error=f"internal error: the task could not be called: {failure!r}")
        future.release()
        return outcome

    def _lost(self, sent: Sent, detail: str) -> Outcome:
        self.lost_one = True
        note = _read(sent.note)
        if note is not None:
            reason = f"out of memory: it took {note['peak_mb']} MB and had {note['limit_mb']} MB"
            loss, limit_mb = Loss(reason, out_of_memory=True), int(note["limit_mb"])
        else:
            loss = self._explain(sent.seat.name)
            limit_mb = sent.seat.memory_mb if loss.out_of_memory else 0
        return Outcome(
            sent.task.key,
            error=loss.reason,
            detail=detail,
            lost=True,
            blameless=loss.blameless,
            out_of_memory=loss.out_of_memory,
            limit_mb=limit_mb,
            worker=sent.seat.name,
        )


def _read(note: Path) -> dict[str, int] | None:
    """Return what a note says; None if there is none."""
    try:
        content: dict[str, int] = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content
