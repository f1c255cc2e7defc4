"""What is done, as lines in one append-only file that the one driver writes.

A line is whole or it is not there: a torn last line, left by a killed driver, is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

from comir_batch.core.errors import RunDirectoryError
from comir_batch.pipeline.run_lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from comir_batch.core.task import Outcome
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.layout import Layout

# What a task's value may name: paths in the run directory without which it does not count.
FILES = "files"
_BEGIN = "begin"  # kind of the line of a driver that begins to work


@dataclass(slots=True)
class JobRecord:
    """What is known of a job: its finished tasks since its last fresh start, and whether it is done.

    Attributes
    ----------
    tasks : dict
        Outcome line of each finished task, by its key.
    done : bool
        Whether every phase was finished.
    value : object
        What its last task returned.
    written_mb : float or None
        Size of what a finished job left; None where that is not known.
    dropped_s : float
        CPU time of tasks that were finished and are of no use, since the job was begun anew.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    done: bool = False
    value: Any = None
    written_mb: float | None = None
    dropped_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of its tasks, added up."""
        return sum(float(line["seconds"]) for line in self.tasks.values())

    @property
    def cpu_seconds(self) -> float:
        """CPU time of its tasks, added up; what an earlier version recorded has none."""
        return sum(float(line.get("cpu_seconds", 0.0)) for line in self.tasks.values())

    @property
    def measured(self) -> bool:
        """Whether the job is done and all that it took is known; earlier versions recorded less."""
        known = all("cpu_seconds" in line for line in self.tasks.values())
        return self.done and self.written_mb is not None and known

    @property
    def peak_mb(self) -> int:
        """Highest memory of its tasks."""
        return max((int(line["peak_mb"]) for line in self.tasks.values()), default=0)


class History:
    """The state that the lines of a record file add up to.

    Attributes
    ----------
    jobs : dict of str to JobRecord
        By their keys.
    wall_seconds : float
        How long drivers have worked on the run, all starts together, each until its last task was done.
    """

    def __init__(self, lines: Iterable[dict[str, Any]] = ()) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self.wall_seconds = 0.0
        self._heard: float | None = None
        self._owner: dict[str, str] = {}
        for line in lines:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """Take one more line into account."""
        self._time(line)
        if line["kind"] == _BEGIN:
            return
        key = line["job"]
        record = self.jobs.setdefault(key, JobRecord())
        match line["kind"]:
            case "start":
                if line["fresh"]:
                    self.jobs[key] = JobRecord(dropped_s=record.dropped_s + record.cpu_seconds)
                self._own(line)
            case "task":
                record.tasks[line["task"]] = line
                record.value = line["value"]
            case "done":
                record.done = True
                record.written_mb = line.get("written_mb")
            case "failed":
                self._own(line)

    def of(self, key: str) -> JobRecord:
        """Return the record of a job; an empty one if nothing is known of it."""
        return self.jobs.get(key, JobRecord())

    def is_done(self, job: Job, root: Path) -> bool:
        """Tell whether a job is done, its outputs are still there, and no other job has written over them since."""
        return self.of(job.key).done and self._intact(job, root)

    def wrote_last(self, job: Job, root: Path) -> bool:
        """Tell whether a job is done, and what is or was under the names of its outputs is its own."""
        return self.of(job.key).done and self._owns(job, root)

    def is_resumable(self, job: Job, root: Path) -> bool:
        """Tell whether the finished tasks of an unfinished job still count: what its first phase made is there."""
        return not self.of(job.key).done and self._intact(job, root)

    def _time(self, line: dict[str, Any]) -> None:
        """Count the time since the line before, unless no driver was at work."""
        if "at" not in line:
            return
        if self._heard is not None and line["kind"] != _BEGIN:
            self.wall_seconds += max(line["at"] - self._heard, 0.0)
        self._heard = line["at"]

    def _own(self, line: dict[str, Any]) -> None:
        self._owner.update(dict.fromkeys(line["outputs"], line["job"]))

    def _owns(self, job: Job, root: Path) -> bool:
        return all(self._owner.get(_relative(path, root)) == job.key for path in job.outputs)

    def _intact(self, job: Job, root: Path) -> bool:
        return self._owns(job, root) and all(path.exists() for path in (*job.outputs, *self._files(job, root)))

    def _files(self, job: Job, root: Path) -> Iterator[Path]:
        """Yield what the job's tasks named beyond the outputs that every job of their stage has."""
        for line in self.of(job.key).tasks.values():
            names = line["value"].get(FILES, ()) if isinstance(line["value"], dict) else ()
            yield from (root / name for name in names)


class Records:
    """The record file, open for the one driver; a second driver is refused.

    Parameters
    ----------
    layout : Layout
        Of the run directory, which is made if it is not there.
    say : callable
        Takes sentences for the user.

    Raises
    ------
    RunDirectoryError
        If another driver holds the run directory's lock, or it cannot be made.
    """

    def __init__(self, layout: Layout, say: Callable[[str], object]) -> None:
        self._layout = layout
        try:
            layout.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the run directory {layout.root}: {error.strerror}. Choose another --out"
            raise RunDirectoryError(message) from error
        self._lock = RunLock(layout.lock, say)
        self.history = History(_intact_lines(layout.records))
        self._stream: TextIO = layout.records.open("a", encoding="utf-8")

    def begun(self) -> None:
        """Note that this driver begins to work."""
        self._append({"kind": _BEGIN, "job": "", "at": round(time.time(), 3)})

    def started(self, job: Job, *, fresh: bool) -> None:
        """Note that a job begins, and that its outputs are its own from now on."""
        self._append({"kind": "start", "job": job.key, "fresh": fresh, "outputs": self._names(job.outputs)})

    def task_done(self, job: Job, outcome: Outcome) -> None:
        """Note a finished task."""
        line = {"kind": "task", "job": job.key, "task": outcome.key, "value": outcome.value}
        line |= {"seconds": round(outcome.seconds, 3), "cpu_seconds": round(outcome.cpu_seconds, 3)}
        line |= {"peak_mb": outcome.peak_mb, "held_mb": outcome.held_mb, "worker": outcome.worker}
        line["at"] = round(time.time(), 3)
        self._append(line)

    def job_done(self, job: Job, written_mb: float) -> None:
        """Note that every phase of a job is finished, and the size of what it left, in MB."""
        self._append({"kind": "done", "job": job.key, "written_mb": round(written_mb, 3)})

    def job_failed(self, job: Job, message: str, overwritten: Iterable[Path]) -> None:
        """Note why a job failed, to be tried again by the next run, and whose outputs its failure writes over."""
        outputs = self._names(overwritten)
        self._append({"kind": "failed", "job": job.key, "message": message, "outputs": outputs})

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._stream.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _names(self, paths: Iterable[Path]) -> list[str]:
        return [_relative(path, self._layout.root) for path in paths]

    def _append(self, line: dict[str, Any]) -> None:
        self._lock.check()
        self._stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._stream.flush()
        self.history.add(line)


def read_history(path: Path) -> History:
    """Read a record file without the lock, for reports; an unfinished last line is left out."""
    return History(_parsed(path.read_bytes())) if path.exists() else History()


def _intact_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return _parsed(content)


def _parsed(content: bytes) -> list[dict[str, Any]]:
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in lines]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
