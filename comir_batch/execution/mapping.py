"""Mapping a function over items with any executor."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from comir_batch.core.task import Outcome, Resource, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from comir_batch.core.task import Executor


class TaskList:
    """A task source of tasks that are all known beforehand.

    Attributes
    ----------
    outcomes : dict
        Outcome of each task done so far, by key.
    """

    def __init__(self, tasks: Iterable[Task]) -> None:
        waiting = list(tasks)
        self._queues = {kind: deque(task for task in waiting if task.resource is kind) for kind in Resource}
        self._missing = {task.key for task in waiting}
        if len(self._missing) != len(waiting):
            raise ValueError("the keys of tasks must be unique")
        self.outcomes: dict[str, Outcome] = {}

    def next_task(self, resource: Resource) -> Task | None:
        """Return the next task for that kind of worker."""
        queue = self._queues[resource]
        return queue.popleft() if queue else None

    def ready(self, resource: Resource) -> int:
        """Return how many tasks wait for that kind of worker."""
        return len(self._queues[resource])

    def handle(self, outcome: Outcome) -> None:
        """Keep the outcome."""
        self._missing.discard(outcome.key)
        self.outcomes[outcome.key] = outcome

    @property
    def finished(self) -> bool:
        """Whether every task has its outcome."""
        return not self._missing


def map_tasks(
    executor: Executor,
    function: Callable[[Any], Any],
    payloads: Sequence[Any],
    *,
    stage: str = "map",
    resource: Resource = Resource.CPU,
) -> list[Outcome]:
    """Return the outcome of ``function(payload)`` for each payload, in their order.

    Parameters
    ----------
    executor : Executor
        Where to run.
    function : callable
        Module-level function of one small, picklable payload.
    payloads : sequence
        What to call it with.
    stage : str
        First word of the tasks' keys.
    resource : Resource
        Which workers may run it.
    """
    tasks = [Task(f"{stage}-{number}", function, payload, resource) for number, payload in enumerate(payloads)]
    source = TaskList(tasks)
    executor.run(source)
    return [source.outcomes[task.key] for task in tasks]
