"""Running tasks one after the other in this process: for debugging, workflow managers and small jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.task import Resource
from comir_batch.execution.call import run_task
from comir_batch.execution.stop import StopRequest

if TYPE_CHECKING:
    from comir_batch.core.task import TaskSource


class SerialExecutor:
    """Runs every kind of task in this process; a request to stop is honoured after the running task.

    Parameters
    ----------
    stop : StopRequest or None
        Looked at before each task.
    """

    def __init__(self, stop: StopRequest | None = None) -> None:
        self._stop = stop or StopRequest()

    @property
    def dashboard(self) -> str:
        """Empty: there is none."""
        return ""

    def run(self, source: TaskSource) -> None:
        """Pull tasks and hand back outcomes until the source is finished.

        Raises
        ------
        StoppedError
            If a request to stop came.
        RuntimeError
            If the source is not finished but offers nothing, which is a fault of the source.
        """
        while not source.finished:
            found = [self._run_next(source, resource) for resource in Resource]
            if not any(found) and not source.finished:
                raise RuntimeError("the task source is not finished, but no task is running and it offers none")

    def memory_mb(self, resource: Resource) -> int:  # noqa: ARG002  one process runs every kind
        """Return 0: there is no limit but the machine's."""
        return 0

    def close(self) -> None:
        """Release nothing; there is nothing."""

    def _run_next(self, source: TaskSource, resource: Resource) -> bool:
        self._stop.check()
        task = source.next_task(resource)
        if task is not None:
            source.handle(run_task(task, worker="serial"))
        return task is not None
