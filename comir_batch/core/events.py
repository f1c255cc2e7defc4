"""Progress as events: the pipeline publishes them; terminal, log and report subscribe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What happened."""

    RUN_STARTED = "run_started"  # data: jobs still to be done
    DASHBOARD = "dashboard"  # data: address, tunnel (empty where workers are on this machine)
    NOTICE = "notice"  # data: message
    JOB_STARTED = "job_started"  # data: tasks
    TASKS_PLANNED = "tasks_planned"  # data: tasks added to the job's phase
    TASK_DONE = "task_done"  # data: task, seconds, peak_mb, worker
    TASK_FAILED = "task_failed"  # data: task, message
    TASK_RETRIED = "task_retried"  # data: task, message
    JOB_DONE = "job_done"  # data: seconds
    JOB_SKIPPED = "job_skipped"  # data: reason
    JOB_FAILED = "job_failed"  # data: message
    PAIR_DONE = "pair_done"  # data: verdict, reasons
    RUN_DONE = "run_done"  # data: verdict counts, seconds


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `stage` and `pairs` are empty where they do not apply."""

    kind: Kind
    stage: str = ""
    pairs: tuple[str, ...] = ()
    job: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


Subscriber = Callable[[Event], None]


class EventBus:
    """Hands each event to every subscriber, in the order of their subscription."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it sees the events from now on."""
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        """Hand an event to all."""
        for subscriber in self._subscribers:
            subscriber(event)
