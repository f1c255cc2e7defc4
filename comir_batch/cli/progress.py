"""Progress on stderr: bars on a terminal, plain lines elsewhere; both hear the run's events."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from comir_batch.core.events import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.progress import Progress, TaskID

    from comir_batch.core.events import Event, Subscriber
    from comir_batch.execution.stop import StopRequest

_QUIET_S = 10.0
_TEXTS = {
    Kind.DASHBOARD: "dashboard: {address} {tunnel}",
    Kind.NOTICE: "{message}",
    Kind.JOB_STARTED: "{job} ({pairs}): started",
    Kind.JOB_DONE: "{job} ({pairs}): done, {seconds:.1f} s of work",
    Kind.JOB_SKIPPED: "{job} ({pairs}): skipped, {reason}",
    Kind.JOB_FAILED: "{job} ({pairs}): failed, {message}",
    Kind.TASK_RETRIED: "{job} ({pairs}): {task} is tried again, {message}",
    Kind.PAIR_DONE: "{pairs}: {verdict} {reasons}",
}


@contextmanager
def show_progress() -> Iterator[Subscriber]:
    """Yield the subscriber that suits where stderr goes."""
    if sys.stderr.isatty():
        with _bars() as progress:
            yield Bars(progress)
    else:
        yield Lines(sys.stderr)


@contextmanager
def watched(notify: Callable[[], None] | None = None) -> Iterator[tuple[StopRequest, Subscriber]]:
    """Yield what signals ask to stop within the block, and the subscriber that shows progress.

    Parameters
    ----------
    notify : callable, optional
        Called when the first signal has come.
    """
    from comir_batch.execution.stop import StopRequest

    stop = StopRequest(notify)
    with show_progress() as subscriber, stop.on_signals():
        yield stop, subscriber


class Lines:
    """A line an event; of a job's finished tasks at most one line in ten seconds.

    Parameters
    ----------
    stream : text stream
        Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts = TaskCounts()
        self._last: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write what happened, if it is worth a line."""
        self._counts.add(event)
        text = describe(event)
        if event.kind is Kind.JOB_STARTED:
            self._last[event.job] = event.at
        elif event.kind is Kind.TASK_DONE and event.at - self._last.get(event.job, 0.0) > _QUIET_S:
            self._last[event.job] = event.at
            done, planned = self._counts.of(event.job)
            text = f"{event.job} ({', '.join(event.pairs)}): {done} of {planned} tasks done" if done < planned else ""
        if text:
            self._stream.write(f"{time.strftime('%H:%M:%S', time.localtime(event.at))} {text}\n")
            self._stream.flush()


class Bars:
    """A bar a stage, and a line above them for what a user must know.

    Parameters
    ----------
    progress : rich.progress.Progress
        Started.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}
        self._counts = TaskCounts()

    def __call__(self, event: Event) -> None:
        """Move the bars."""
        self._counts.add(event)
        if event.kind in {Kind.TASKS_PLANNED, Kind.TASK_DONE}:
            done, planned = self._counts.of_stage(event.stage)
            if event.stage not in self._bars:
                self._bars[event.stage] = self._progress.add_task(event.stage, total=planned)
            self._progress.update(self._bars[event.stage], completed=done, total=planned)
        text = describe(event)
        if text and event.kind not in {Kind.JOB_STARTED, Kind.JOB_DONE}:
            self._progress.console.print(text, markup=False, highlight=False)


def joined(reasons: Iterable[str]) -> str:
    """Return the reasons of a verdict as one line."""
    return "; ".join(reason.rstrip(".") for reason in reasons)


class TaskCounts:
    """Numbers of planned and finished tasks."""

    def __init__(self) -> None:
        self._jobs: dict[str, tuple[str, int, int]] = {}

    def add(self, event: Event) -> None:
        """Take an event into account."""
        _, done, planned = self._jobs.get(event.job, (event.stage, 0, 0))
        if event.kind is Kind.TASKS_PLANNED:
            self._jobs[event.job] = (event.stage, done, planned + int(event.data["tasks"]))
        elif event.kind is Kind.TASK_DONE:
            self._jobs[event.job] = (event.stage, done + 1, planned)

    def of(self, job: str) -> tuple[int, int]:
        """Return how many tasks of a job are done and planned."""
        _, done, planned = self._jobs[job]
        return done, planned

    def of_stage(self, stage: str) -> tuple[int, int]:
        """Return how many tasks of a stage are done and planned."""
        mine = [(done, planned) for name, done, planned in self._jobs.values() if name == stage]
        return sum(done for done, _ in mine), sum(planned for _, planned in mine)


def describe(event: Event) -> str:
    """Return one line for an event; empty for those that only count."""
    data = dict(event.data)
    if event.kind is Kind.PAIR_DONE:
        data["verdict"] = data["verdict"] or "done up to the stage that was asked for"
        data["reasons"] = f"({joined(data['reasons'])})" if data["reasons"] else ""
    if event.kind is Kind.DASHBOARD and data["tunnel"]:
        data["tunnel"] = f"(from your own machine: {data['tunnel']})"
    text = _TEXTS.get(event.kind, "").format(job=event.job, pairs=", ".join(event.pairs), **data)
    return " ".join(text.split())


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress
