"""What is done, as lines in one append-only file that the one driver writes.

A line is whole or it is not there: a torn last line, left by a killed driver, is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
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
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    done: bool = False
    value: Any = None

    @property
    def seconds(self) -> float:
        """Wall time of its tasks, added up."""
        return sum(float(line["seconds"]) for line in self.tasks.values())

    @property
    def peak_mb(self) -> int:
        """Highest memory of its tasks."""
        return max((int(line["peak_mb"]) for line in self.tasks.values()), default=0)


class History:
    """The state that the lines of a record file add up to."""

    def __init__(self, lines: Iterable[dict[str, Any]] = ()) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self._owner: dict[str, str] = {}
        for line in lines:
            self.add(line)

    def add(self, line: dict[str, Any]) -> None:
        """Take one more line into account."""
        key = line["job"]
        record = self.jobs.setdefault(key, JobRecord())
        match line["kind"]:
            case "start":
                if line["fresh"]:
                    self.jobs[key] = JobRecord()
                self._own(line)
            case "task":
                record.tasks[line["task"]] = line
                record.value = line["value"]
            case "done":
                record.done = True
            case "failed":
                self._own(line)

    def of(self, key: str) -> JobRecord:
        """Return the record of a job; an empty one if nothing is known of it."""
        return self.jobs.get(key, JobRecord())

    def is_done(self, job: Job, root: Path) -> bool:
        """Tell whether a job is done, its outputs are still there, and no other job has written over them since."""
        return self.of(job.key).done and self._intact(job, root)

    def is_resumable(self, job: Job, root: Path) -> bool:
        """Tell whether the finished tasks of an unfinished job still count: what its first phase made is there."""
        return not self.of(job.key).done and self._intact(job, root)

    def _own(self, line: dict[str, Any]) -> None:
        self._owner.update(dict.fromkeys(line["outputs"], line["job"]))

    def _intact(self, job: Job, root: Path) -> bool:
        owned = all(self._owner.get(_relative(path, root)) == job.key for path in job.outputs)
        return owned and all(path.exists() for path in (*job.outputs, *self._files(job, root)))

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

    def started(self, job: Job, *, fresh: bool) -> None:
        """Note that a job begins, and that its outputs are its own from now on."""
        self._append({"kind": "start", "job": job.key, "fresh": fresh, "outputs": self._names(job.outputs)})

    def task_done(self, job: Job, outcome: Outcome) -> None:
        """Note a finished task."""
        line = {"kind": "task", "job": job.key, "task": outcome.key, "value": outcome.value}
        line |= {"seconds": round(outcome.seconds, 3), "peak_mb": outcome.peak_mb, "worker": outcome.worker}
        self._append(line)

    def job_done(self, job: Job) -> None:
        """Note that every phase of a job is finished."""
        self._append({"kind": "done", "job": job.key})

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
