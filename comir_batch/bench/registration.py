"""How often known transforms of held-out fields are found: with a model, without one, and by others' methods."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.bench.conditions import conditions
from comir_batch.bench.field_worker import Batch, Setup, measure_batch
from comir_batch.bench.methods import DEFAULT, METHODS, methods_for
from comir_batch.bench.registration_report import benchmark_page
from comir_batch.bench.registration_table import cells, markdown, summarise, verdict_cells
from comir_batch.bench.rows import Rows
from comir_batch.bench.verdicts import judged, tallied, verdicts_csv
from comir_batch.core.config import ExecutionConfig, JudgeConfig
from comir_batch.core.errors import ConfigError, ModelError, TaskError
from comir_batch.core.events import Event, Kind
from comir_batch.core.task import Resource, Task
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.start import ExecutorRequest, start_executor
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.registration.memory import registration_memory_mb
from comir_batch.representation.memory import memory_mb
from comir_batch.training.pairs import prepare
from comir_batch.training.unseen import require_unseen, unseen_parts, whole_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from comir_batch.bench.conditions import Condition
    from comir_batch.bench.registration_table import Table
    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.task import Outcome
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model

_BATCH = 4
_RETRIES = 2
_SMALLEST_SIDE = 96


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure.

    Attributes
    ----------
    model : Model
        Knows both modalities of the pairs.
    pairs : Path
        Manifest of aligned pairs.
    out : Path
        Takes the slides as Zarr, a line for each field, and the table; the same one resumes.
    config : RegisterConfig
        Of our pipeline.
    learnt : (float, float, float, float) or None
        The part of the fixed slides that the model has learnt from, as shares; fields come from the rest. None for what
        the model's card says.
    whole : bool
        Take fields from whole slides, whatever the model has learnt from.
    count : int
        Fields of each condition.
    side : int
        Of the fields, in pixels.
    only, methods : tuple of str
        Names of conditions and of methods; empty for all conditions and the methods that are measured by default.
    seed : int
        Of the fields.
    verdicts : bool
        Whether evidence for the verdicts is gathered, which takes a fit of the other view a field.
    workers : int
        Processes; 1 for this one alone, 0 for one a core.
    judge : JudgeConfig
        Thresholds of the verdicts; those of the call decide, whenever fields were measured.
    command : tuple of str
        The command line, for the report.
    """

    model: Model
    pairs: Path
    out: Path
    config: RegisterConfig
    learnt: tuple[float, float, float, float] | None = None
    whole: bool = False
    count: int = 100
    side: int = 256
    only: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seed: int = 0
    verdicts: bool = True
    workers: int = 1
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    command: tuple[str, ...] = ()

    @property
    def execution(self) -> ExecutionConfig:
        """Where the work is done."""
        executor = "serial" if self.workers == 1 else "local"
        return ExecutionConfig(executor=executor, workers=self.workers, device="cpu", dashboard="")


class Tables(NamedTuple):
    """What was found, and the verdicts, as text."""

    found: Table
    verdicts: Table


def compare(request: BenchRequest, stop: StopRequest, subscriber: Subscriber) -> Tables:
    """Measure what is not measured yet, write tables and report, and return the tables.

    They are ``table.json``, ``table.md``, ``verdicts.csv`` (every field's numbers) and ``report.html``, and show what
    this call and earlier ones measured in the folder, of the conditions and as many fields as are asked for.

    Raises
    ------
    ConfigError
        If the settings are wrong, or the folder holds the results of others.
    ManifestError, ModelError
        If the pairs cannot be used, or do not fit the model.
    TaskError
        If a field failed for a reason that is not its method's.
    StoppedError
        If the work was asked to stop; the same call goes on with it.
    """
    chosen = _chosen(request)
    setup, where = _setup(request, stop, subscriber)
    rows = Rows(request.out, setup)
    tasks = [task for condition in chosen for task in _tasks(request, setup, condition, rows)]
    _run(request, tasks, rows, stop, subscriber)
    names = {condition.name for condition in chosen}
    wanted = [row for row in rows.done.values() if row["condition"] in names and row["number"] < request.count]
    about = {"setup": {**setup.description, "ours": setup.ours}, "measured": where}
    return _written(request, chosen, wanted, about)


def _written(
    request: BenchRequest, chosen: Sequence[Condition], rows: Sequence[dict[str, Any]], about: dict[str, Any]
) -> Tables:
    """Sum the rows up, write it all, and return the tables."""
    groups, fields = summarise(rows, chosen), judged(rows, chosen, request.judge)
    tallies = tallied(fields, chosen)
    verdicts = [{"title": title, "methods": {m: t.to_json() for m, t in methods.items()}} for title, methods in tallies]
    settings = {"count": request.count, "judge": request.judge.model_dump(mode="json")}
    write_json(request.out / "table.json", {**about, **settings, "conditions": groups, "verdicts": verdicts})
    intro = _introduction(request, about["measured"])
    write_text(request.out / "table.md", markdown(groups, tallies, intro))
    write_text(request.out / "verdicts.csv", verdicts_csv(fields))
    write_text(request.out / "report.html", benchmark_page(groups, rows, tallies, intro, request.command))
    return Tables(cells(groups), verdict_cells(tallies))


def _chosen(request: BenchRequest) -> list[Condition]:
    known = {condition.name: condition for condition in conditions(request.side)}
    for what, asked, there in (("condition", request.only, known), ("method", request.methods, METHODS)):
        unknown = sorted(set(asked) - set(there))
        if unknown:
            raise ConfigError(f"there is no {what} {', '.join(unknown)}; there are {', '.join(there)}")
    if request.config.second_metric == "landmarks":
        raise ConfigError("the fields have no landmarks; set register.second_metric to none or raw")
    if request.side < _SMALLEST_SIDE:
        raise ConfigError(
            f"fields of {request.side} pixels are too small to hold tiles out; take {_SMALLEST_SIDE} or more"
        )
    return [condition for name, condition in known.items() if name in (request.only or known)]


def _setup(request: BenchRequest, stop: StopRequest, subscriber: Subscriber) -> tuple[Setup, str]:
    """Return what fields are drawn from, and a sentence that says which part of the slides that is."""
    card = request.model.card
    if request.learnt is not None and not request.whole:
        require_unseen(request.learnt)
    folder = request.out / "slides"
    prepared = prepare(request.pairs, folder, card.mpp, request.execution, subscriber, stop=stop, purpose="measure")
    if not card.knows(*prepared.modalities):
        known = " and ".join(modality.modality for modality in card.modalities)
        raise ModelError(
            f"the model {card.name} is for {known}, the pairs are of {' and '.join(prepared.modalities)}; give pairs "
            "of its modalities"
        )
    pairs = prepared.pairs
    parts, where = whole_parts(card, pairs) if request.whole else unseen_parts(card, pairs, request.learnt)
    return Setup(parts, request.model, request.side, request.seed, request.config), where


def _tasks(request: BenchRequest, setup: Setup, condition: Condition, rows: Rows) -> Iterator[Task]:
    """Yield tasks of a few fields that lack the same methods."""
    memory = registration_memory_mb(setup.side**2) + max(memory_mb(card, setup.side) for card in setup.modalities)
    wanted = [name for name in methods_for(condition) if name in (request.methods or DEFAULT)]
    lacking: dict[tuple[str, ...], list[int]] = {}
    for number in range(request.count):
        lacking.setdefault(rows.missing(condition.name, number, wanted), []).append(number)
    lacking.pop((), None)
    for methods, numbers in lacking.items():
        for first in range(0, len(numbers), _BATCH):
            batch = Batch(setup, condition.name, tuple(numbers[first : first + _BATCH]), methods, request.verdicts)
            yield Task(f"{condition.name}-{numbers[first]}", measure_batch, batch, memory_mb=memory)


class _Batches:
    """The source of the tasks: none waits for another; one whose worker was lost is tried again."""

    def __init__(self, tasks: Sequence[Task], rows: Rows, subscriber: Subscriber) -> None:
        self._waiting, self._running = deque(tasks), dict[str, Task]()
        self._lost: dict[str, int] = {}
        self._rows, self._subscriber = rows, subscriber
        subscriber(Event(Kind.TASKS_PLANNED, "fields", (), "fields", {"tasks": len(tasks)}))

    def next_task(self, resource: Resource) -> Task | None:
        if resource is not Resource.CPU or not self._waiting:
            return None
        task = self._waiting.popleft()
        self._running[task.key] = task
        return task

    def ready(self, resource: Resource) -> int:
        return len(self._waiting) if resource is Resource.CPU else 0

    def handle(self, outcome: Outcome) -> None:
        task = self._running.pop(outcome.key)
        if outcome.ok:
            self._rows.add(outcome.value)
            cost = {"seconds": outcome.seconds, "peak_mb": outcome.peak_mb, "worker": outcome.worker}
            self._subscriber(Event(Kind.TASK_DONE, "fields", (), "fields", {"task": outcome.key, **cost}))
            return
        self._lost[task.key] = self._lost.get(task.key, 0) + 1
        if not outcome.lost or self._lost[task.key] > _RETRIES:
            raise TaskError(f"fields {outcome.key}: {outcome.error}")
        self._waiting.append(task)

    @property
    def finished(self) -> bool:
        return not self._waiting and not self._running


def _run(request: BenchRequest, tasks: Sequence[Task], rows: Rows, stop: StopRequest, subscriber: Subscriber) -> None:
    if not tasks:
        return
    folder = request.out / "workers"
    files = ClusterFiles(request.out, folder, folder)
    say = partial(_notice, subscriber)
    executor = start_executor(ExecutorRequest(request.execution, files, None, (), say), stop)
    try:
        executor.run(_Batches(tasks, rows, subscriber))
    finally:
        executor.close()


def _notice(subscriber: Subscriber, message: str) -> None:
    subscriber(Event(Kind.NOTICE, data={"message": message}))


def _introduction(request: BenchRequest, where: str) -> str:
    card = request.model.card
    return (
        f"Model {card.name}, {card.mpp:g} µm/px. {where} A transform is found if the corners (landmarks, where the "
        f"field is bent) lie within 2 % of the side on average. Errors are medians, CPU seconds medians for one field, "
        "without what only the verdict takes."
    )
