"""Tasks: what executors run. They carry paths and small records, never arrays."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Resource(StrEnum):
    """Kind of worker that a task needs."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Task:
    """One call of a module-level function with a small, picklable payload.

    Attributes
    ----------
    key : str
        Unique in a run, readable by stage, without slide names: ``represent-3fa2c1d0-b4``.
    function : callable
        Takes the payload and returns a small value of JSON's own types.
    payload : object
        Small, frozen, picklable.
    resource : Resource
        Which workers may run it.
    memory_mb : int
        Most memory that it may use, computed before it is sent.
    writes : tuple of Path
        What must be seen of it before it counts as done; by default all outputs of its job.
    """

    key: str
    function: Callable[[Any], Any]
    payload: Any
    resource: Resource = Resource.CPU
    memory_mb: int = 512
    writes: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes
    ----------
    key : str
        The task's.
    value : object
        What the function returned; None if it failed.
    error : str
        Empty if it succeeded, else one line for a user.
    detail : str
        Traceback of an unexpected error, for the log.
    lost : bool
        The worker was lost, or short of memory, or the file system failed; not the function at fault.
    blameless : bool
        Of a lost one: the loss had nothing to do with the task (preemption, walltime, a node gone).
    out_of_memory : bool
        Of a lost one: there was too little memory.
    limit_mb : int
        Memory that the task had, where it was too little; 0 if unknown.
    most_mb : int
        Of a lost one: the most memory that a task of its kind can have; 0 for no limit, or not known.
    disk_full : bool
        There was no room to write, not the function at fault.
    seconds : float
        Wall time of the function.
    cpu_seconds : float
        CPU time that the worker's process and its children spent meanwhile.
    peak_mb : int
        Highest resident memory in MB (10^6 bytes) of the worker's process and its children, seen while it ran.
    held_mb : int
        What of it they had when it began: libraries, and what a worker keeps for the next task of the same kind.
    worker : str
        Name of the worker.
    """

    key: str
    value: Any = None
    error: str = ""
    detail: str = ""
    lost: bool = False
    blameless: bool = False
    out_of_memory: bool = False
    limit_mb: int = 0
    most_mb: int = 0
    disk_full: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: int = 0
    held_mb: int = 0
    worker: str = ""

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return not self.error


class TaskSource(Protocol):
    """Where an executor gets its tasks, and whom it tells what became of them; used from one thread only."""

    def next_task(self, resource: Resource) -> Task | None:
        """Return a task for that kind of worker; None if there is none at the moment."""
        ...

    def ready(self, resource: Resource) -> int:
        """Return how many tasks `next_task` would give at the moment; executors size themselves by it."""
        ...

    def handle(self, outcome: Outcome) -> None:
        """Take an outcome; more tasks may be ready afterwards."""
        ...

    @property
    def finished(self) -> bool:
        """Whether no task is left and none will come."""
        ...


class Executor(Protocol):
    """Runs functions on resources; knows no images."""

    def run(self, source: TaskSource) -> None:
        """Pull tasks and hand back outcomes until the source is finished.

        Raises
        ------
        NoWorkersError
            If there is no worker of a kind that a task needs.
        StoppedError
            If a signal asked to stop.
        """
        ...

    def close(self) -> None:
        """Release the resources; safe to call twice."""
        ...

    @property
    def dashboard(self) -> str:
        """Address of the dashboard; empty if there is none."""
        ...

    def memory_mb(self, resource: Resource) -> int:
        """Return the most memory in MiB that a task of a kind can have; 0 if there is no limit, or no worker yet."""
        ...
