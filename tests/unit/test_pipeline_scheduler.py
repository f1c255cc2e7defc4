"""The scheduler as a state machine: order, windows, failure, resume; no image and no executor is needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from comir_batch.core.errors import StoppedError
from comir_batch.core.task import Outcome, Resource, Task
from comir_batch.pipeline.job import Estimate, Job
from comir_batch.pipeline.records import JobRecord
from comir_batch.pipeline.scheduler import Scheduler, State


def nothing(_payload: object) -> None:
    """Stand for a task's function; these tests never call it."""


@dataclass(frozen=True)
class Phases:
    """Work of so many tasks in each phase."""

    sizes: tuple[int, ...] = (1,)
    resource: Resource = Resource.CPU

    def phase(self, number: int, key: str) -> list[Task] | None:
        if number >= len(self.sizes):
            return None
        return [Task(f"{key}-p{number}t{i}", nothing, None, self.resource) for i in range(self.sizes[number])]

    def estimate(self) -> Estimate:
        return Estimate(sum(self.sizes), 1)


class Notes:
    """A journal that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def job_started(self, job, *, fresh):
        self.lines.append(("started" if fresh else "resumed", job.key))

    def tasks_planned(self, job, count):
        self.lines.append((f"planned {count}", job.key))

    def task_done(self, job, task, outcome):  # noqa: ARG002
        self.lines.append(("task", outcome.key))

    def task_retried(self, job, outcome):  # noqa: ARG002
        self.lines.append(("retried", outcome.key))

    def job_done(self, job, *, clean):
        self.lines.append(("done" if clean else "done unclean", job.key))

    def job_skipped(self, job, reason):  # noqa: ARG002
        self.lines.append(("skipped", job.key))

    def job_failed(self, job, message, detail):  # noqa: ARG002
        self.lines.append((f"failed {message}", job.key))

    def pair_finished(self, pair):
        self.lines.append(("finished", pair))

    def of(self, what: str) -> list[str]:
        return [key for kind, key in self.lines if kind == what]


def job(stage: str, pair: str, *inputs: Job, **more) -> Job:
    pairs = more.pop("pairs", (pair,))
    settles = tuple(other.key for other in more.pop("settles", ()))
    work = more.pop("work", Phases())
    keys = tuple(other.key for other in inputs)
    return Job(stage, f"{pair}0", work, Resource.CPU, pairs, (), keys, settles, **more)


def machine(
    jobs: list[Job], pairs: list[str], *, done=(), records=None, in_flight=4, retries=1
) -> tuple[Scheduler, Notes]:
    notes = Notes()
    scheduler = Scheduler(
        {each.key: each for each in jobs},
        frozenset(done),
        records or {},
        pairs,
        notes,
        in_flight=in_flight,
        retries=retries,
    )
    return scheduler, notes


def drain(scheduler: Scheduler, value=None, resource=Resource.CPU) -> list[str]:
    order = []
    while (task := scheduler.next_task(resource)) is not None:
        order.append(task.key)
        scheduler.handle(Outcome(task.key, value=value))
    return order


def chain(pair: str) -> list[Job]:
    chunk = job("chunk", pair, work=Phases((1, 2)))
    register = job("register", pair, chunk)
    judge = job("judge", pair, register)
    warp = job("warp", pair, register, judge, gate=judge.key)
    export = job("export", pair, register, judge, warp)
    report = job("report", pair, settles=(chunk, register, judge, export))
    return [chunk, register, judge, warp, export, report]


def test_stages_follow_their_inputs_and_phases_their_order():
    scheduler, notes = machine(chain("a"), ["a"])
    order = drain(scheduler, {"verdict": "accept"})
    assert [key.split("-")[0] for key in order] == [
        "chunk",
        "chunk",
        "chunk",
        "register",
        "judge",
        "warp",
        "export",
        "report",
    ]
    assert [key[-4:] for key in order[:3]] == ["p0t0", "p1t0", "p1t1"]
    assert scheduler.finished
    assert notes.lines[-1] == ("finished", "a")


def test_a_rejected_pair_skips_warp_and_is_still_exported_and_reported():
    scheduler, notes = machine(chain("a"), ["a"])
    order = drain(scheduler, {"verdict": "reject"})
    assert "warp-a0-p0t0" not in order
    assert notes.of("skipped") == ["warp-a0"]
    assert notes.of("done")[-2:] == ["export-a0", "report-a0"]


def test_the_deepest_stage_goes_first_and_the_window_caps_the_pairs():
    scheduler, _ = machine([each for pair in "abc" for each in chain(pair)], list("abc"), in_flight=2)
    first, second = scheduler.next_task(Resource.CPU), scheduler.next_task(Resource.CPU)
    assert [first.key, second.key] == ["chunk-a0-p0t0", "chunk-b0-p0t0"]
    assert scheduler.next_task(Resource.CPU) is None, "pair c is outside the window"
    scheduler.handle(Outcome(first.key))
    following = [scheduler.next_task(Resource.CPU).key for _ in range(2)]
    for key in following:
        scheduler.handle(Outcome(key))
    assert scheduler.next_task(Resource.CPU).key == "register-a0-p0t0"


def test_a_failure_costs_its_own_pair_only_and_its_report_is_made_but_not_recorded_as_done():
    scheduler, notes = machine([*chain("a"), *chain("b")], ["a", "b"])
    while (task := scheduler.next_task(Resource.CPU)) is not None:
        failed = task.key.startswith("register-a")
        scheduler.handle(
            Outcome(task.key, error="no tissue") if failed else Outcome(task.key, value={"verdict": "accept"})
        )
    assert scheduler.finished
    assert notes.of("failed no tissue") == ["register-a0"]
    assert notes.of("failed register failed") == ["judge-a0", "warp-a0", "export-a0"]
    assert notes.of("done unclean") == ["report-a0"]
    assert "report-b0" in notes.of("done")


def test_a_shared_slide_runs_once_and_its_failure_reaches_every_pair():
    chunk = job("chunk", "s", pairs=("a", "b"))
    registers = [job("register", pair, chunk) for pair in "ab"]
    scheduler, notes = machine([chunk, *registers], ["a", "b"])
    scheduler.handle(Outcome(scheduler.next_task(Resource.CPU).key, error="truncated"))
    assert scheduler.finished
    assert notes.of("failed chunk failed") == ["register-a0", "register-b0"]


def test_a_lost_worker_is_retried_and_then_given_up():
    scheduler, notes = machine([job("chunk", "a")], ["a"], retries=1)
    key = scheduler.next_task(Resource.CPU).key
    scheduler.handle(Outcome(key, error="worker lost", lost=True))
    assert notes.of("retried") == [key]
    assert scheduler.next_task(Resource.CPU).key == key
    scheduler.handle(Outcome(key, error="worker lost", lost=True))
    assert scheduler.state("chunk-a0") is State.FAILED


def test_a_task_that_ran_out_of_memory_gets_more_as_often_as_it_takes():
    scheduler, _ = machine([job("chunk", "a")], ["a"], retries=0)
    task = scheduler.next_task(Resource.CPU)
    for had in (512, 1024, 2048, 4096):
        scheduler.handle(Outcome(task.key, error="out of memory", lost=True, out_of_memory=True, limit_mb=had))
        task = scheduler.next_task(Resource.CPU)
        assert task.memory_mb == 2 * had


def test_a_task_that_ran_out_of_memory_gets_the_most_that_there_is_before_it_is_given_up():
    scheduler, notes = machine([job("chunk", "a")], ["a"], retries=0)
    task = scheduler.next_task(Resource.CPU)
    for had, gets in ((600, 1000), (1000, None)):
        short = Outcome(task.key, error="out of memory", lost=True, out_of_memory=True, limit_mb=had, most_mb=1000)
        scheduler.handle(short)
        task = scheduler.next_task(Resource.CPU)
        assert (task and task.memory_mb) == gets
    assert [said for said, _ in notes.lines if said.startswith("failed out of memory; give workers more memory")]


def test_out_of_memory_where_no_limit_is_known_counts_as_a_loss():
    scheduler, _ = machine([job("chunk", "a")], ["a"], retries=1)
    key = scheduler.next_task(Resource.CPU).key
    for _ in range(2):
        scheduler.handle(Outcome(key, error="out of memory", lost=True, out_of_memory=True))
        scheduler.next_task(Resource.CPU)
    assert scheduler.state("chunk-a0") is State.FAILED


def test_the_second_loss_without_a_reason_is_answered_with_more_memory():
    scheduler, _ = machine([job("chunk", "a")], ["a"], retries=2)
    before = task = scheduler.next_task(Resource.CPU)
    for memory_mb in (before.memory_mb, 2 * before.memory_mb):
        scheduler.handle(Outcome(task.key, error="worker lost", lost=True))
        task = scheduler.next_task(Resource.CPU)
        assert task.memory_mb == memory_mb


def test_a_loss_that_nobody_is_to_blame_for_does_not_count_until_there_are_very_many():
    scheduler, _ = machine([job("chunk", "a")], ["a"], retries=0)
    losses = 0
    while (task := scheduler.next_task(Resource.CPU)) is not None:
        scheduler.handle(Outcome(task.key, error="preempted", lost=True, blameless=True))
        losses += 1
    assert losses == 21
    assert scheduler.state("chunk-a0") is State.FAILED


def test_ready_counts_what_could_be_given_of_a_kind():
    jobs = [job("chunk", "a", work=Phases((3,))), job("represent", "b", work=Phases((2,), Resource.GPU))]
    scheduler, _ = machine(jobs, ["a", "b"])
    assert [scheduler.ready(kind) for kind in (Resource.CPU, Resource.GPU)] == [3, 2]
    scheduler.next_task(Resource.CPU)
    assert scheduler.ready(Resource.CPU) == 2


def test_a_full_disk_stops_the_run_and_fails_nobody():
    scheduler, notes = machine([*chain("a"), *chain("b")], ["a", "b"])
    key = scheduler.next_task(Resource.CPU).key
    with pytest.raises(StoppedError, match="no space is left") as stopped:
        scheduler.handle(Outcome(key, error="internal error: OSError: [Errno 28]", disk_full=True))
    assert stopped.value.exit_code == 75
    assert not [line for line in notes.lines if line[0].startswith("failed")]


def test_finished_tasks_of_an_unfinished_job_are_not_run_again():
    chunk = job("chunk", "a", work=Phases((1, 3)))
    record = JobRecord(tasks={f"chunk-a0-{t}": {"value": None} for t in ("p0t0", "p1t1")})
    scheduler, notes = machine([chunk], ["a"], records={"chunk-a0": record})
    assert drain(scheduler) == ["chunk-a0-p1t0", "chunk-a0-p1t2"]
    assert notes.lines[0] == ("resumed", "chunk-a0")


def test_a_job_whose_tasks_all_are_recorded_finishes_without_a_task():
    chunk = job("chunk", "a", work=Phases((1, 1)))
    record = JobRecord(tasks={f"chunk-a0-{t}": {"value": None} for t in ("p0t0", "p1t0")})
    scheduler, notes = machine([chunk], ["a"], records={"chunk-a0": record})
    assert scheduler.finished
    assert notes.of("done") == ["chunk-a0"]


def test_the_verdict_of_an_earlier_run_still_gates():
    jobs = chain("a")
    done = ["chunk-a0", "register-a0", "judge-a0"]
    records = {"judge-a0": JobRecord(done=True, value={"verdict": "reject"})}
    scheduler, notes = machine(jobs, ["a"], done=done, records=records)
    assert [key.split("-")[0] for key in drain(scheduler)] == ["export", "report"]
    assert notes.of("skipped") == ["warp-a0"]


def test_tasks_go_only_to_their_kind_of_worker():
    scheduler, _ = machine([job("represent", "a", work=Phases((2,), Resource.GPU))], ["a"])
    assert scheduler.next_task(Resource.CPU) is None
    assert drain(scheduler, resource=Resource.GPU) == ["represent-a0-p0t0", "represent-a0-p0t1"]


def test_a_task_under_way_when_its_job_fails_is_waited_for_and_ignored():
    scheduler, notes = machine([job("chunk", "a", work=Phases((2,)))], ["a"])
    first, second = (scheduler.next_task(Resource.CPU).key for _ in range(2))
    scheduler.handle(Outcome(first, error="bad block"))
    assert not scheduler.finished
    scheduler.handle(Outcome(second))
    assert scheduler.finished
    assert Counter(kind for kind, _ in notes.lines)["task"] == 0


def test_a_thousand_pairs_are_worked_off_in_order():
    pairs = [f"p{i:04d}" for i in range(1000)]
    scheduler, notes = machine([each for pair in pairs for each in chain(pair)], pairs)
    assert len(drain(scheduler, {"verdict": "accept"})) == 8 * len(pairs)
    assert notes.of("finished") == pairs
