"""The account of a run: added up over its starts, compared like with like; and what it tells of the next one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.task import Outcome, Resource
from comir_batch.pipeline import cost, records
from comir_batch.pipeline.account import account_json, stage_accounts
from comir_batch.pipeline.files import size_mb, write_json
from comir_batch.pipeline.job import Estimate, Job
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.plan import Plan, stage_plan
from comir_batch.pipeline.rates import Rate, read_rates
from comir_batch.pipeline.records import Records


class Work:
    def estimate(self):
        return Estimate(2, 500, disk_mb=8.0, read_mb=20.0, cpu_s=10.0)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "run")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the records think it is; to be set."""
    now = [1000.0]
    monkeypatch.setattr(records.time, "time", lambda: now[0])
    return now


def job(layout, number, stage="warp"):
    return Job(stage, number, Work(), Resource.CPU, ("p",), (layout.root / number,))


def task(name, seconds=4.0, peak_mb=700, held_mb=100):
    return Outcome(name, seconds=seconds, cpu_seconds=seconds / 2, peak_mb=peak_mb, held_mb=held_mb)


def drive(layout, clock, at, *steps):
    """Open the records as a driver that begins at a time, and let it do steps, two seconds apart."""
    clock[0] = at
    with Records(layout, print) as held:
        held.begun()
        for step in steps:
            clock[0] += 2.0
            step(held)
        return held.history


def test_a_resumed_run_adds_up_and_does_not_count_the_time_in_between(layout, clock):
    mine = job(layout, "1")
    drive(layout, clock, 1000.0, lambda r: r.started(mine, fresh=True), lambda r: r.task_done(mine, task("a")))
    history = drive(
        layout,
        clock,
        9000.0,
        lambda r: r.started(mine, fresh=False),
        lambda r: r.task_done(mine, task("b", 6.0, 900, 600)),
        lambda r: r.job_done(mine, 3.0),
    )
    (account,) = stage_accounts([mine], history, "cpu")
    assert (account.taken.cpu_s, account.taken.worker_s, account.taken.wall_s) == (5.0, 10.0, 10.0)
    assert (account.taken.peak_mb, account.taken.held_mb) == (900, 600)
    assert account.taken.written_mb == 3.0
    assert account.dropped_s == 0.0
    assert history.wall_seconds == 4.0 + 4.0


def test_what_was_begun_anew_is_counted_apart(layout, clock):
    mine = job(layout, "1")
    drive(layout, clock, 1000.0, lambda r: r.started(mine, fresh=True), lambda r: r.task_done(mine, task("a")))
    history = drive(
        layout,
        clock,
        2000.0,
        lambda r: r.started(mine, fresh=True),
        lambda r: r.task_done(mine, task("a", 6.0)),
        lambda r: r.job_done(mine, 3.0),
    )
    (account,) = stage_accounts([mine], history, "cpu")
    assert account.taken.cpu_s == 3.0
    assert account.dropped_s == 2.0


def test_only_what_is_done_is_compared(layout, clock):
    done, open_, never = (job(layout, number) for number in "123")
    history = drive(
        layout,
        clock,
        1000.0,
        lambda r: r.started(done, fresh=True),
        lambda r: r.task_done(done, task("a")),
        lambda r: r.job_done(done, 3.0),
        lambda r: r.started(open_, fresh=True),
        lambda r: r.task_done(open_, task("b")),
    )
    (account,) = stage_accounts([done, open_, never], history, "cpu")
    assert (account.done.jobs, account.planned) == (1, 3)
    assert (account.done.cpu_s, account.done.disk_gb, account.done.read_gb) == (10.0, 0.008, 0.02)
    assert account.dropped_s == 2.0


def test_tasks_that_ran_side_by_side_count_once_by_the_clock(layout, clock):
    mine = job(layout, "1")
    tasks = [lambda r, name=name: r.task_done(mine, task(name)) for name in "abc"]
    history = drive(layout, clock, 1000.0, lambda r: r.started(mine, fresh=True), *tasks, lambda r: r.job_done(mine, 1))
    (account,) = stage_accounts([mine], history, "cpu")
    assert (account.taken.worker_s, account.taken.wall_s) == (12.0, 8.0)


def test_records_of_an_earlier_version_are_not_compared(layout, clock):
    mine = job(layout, "1")
    lines = [
        {"kind": "start", "job": mine.key, "fresh": True, "outputs": []},
        {"kind": "task", "job": mine.key, "task": "a", "value": None, "seconds": 1.0, "peak_mb": 2, "worker": "w"},
        {"kind": "done", "job": mine.key},
    ]
    layout.root.mkdir()
    layout.records.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    history = drive(layout, clock, 1000.0)
    assert history.of(mine.key).done
    assert stage_accounts([mine], history, "cpu") == ()


def test_the_next_plan_goes_by_what_a_run_took(layout, clock):
    mine = job(layout, "1")
    history = drive(
        layout,
        clock,
        1000.0,
        lambda r: r.started(mine, fresh=True),
        lambda r: r.task_done(mine, task("a", 40.0)),
        lambda r: r.job_done(mine, 3.0),
    )
    write_json(layout.costs, account_json(stage_accounts([mine], history, "cpu"), 1.0))
    rates = read_rates(layout.root)
    assert rates == {("warp", "cpu"): Rate(2.0, 4.0)}
    warp, judge = (stage_plan(stage, [job(layout, "1", stage)] * 360, "cpu") for stage in ("warp", "judge"))
    plan = Plan(360, (warp, judge), 1.0, rates)
    assert plan.hours(warp) == (2.0, 4.0)
    assert plan.hours(judge) == (1.0, None)
    assert plan.unrated == ("judge",)


def test_hours_on_a_gpu_are_known_from_a_run_alone():
    stage = replace(stage_plan("represent", [], "cuda"), cpu_s=3600.0)
    assert Plan(1, (stage,), 1.0).hours(stage) == (None, None)
    assert Plan(1, (stage,), 1.0, {("represent", "cpu"): Rate(1, 1)}).hours(stage) == (None, None)
    assert Plan(1, (stage,), 1.0, {("represent", "cuda"): Rate(0.1, 0.02)}).hours(stage) == (0.1, 0.02)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no costs.json"),
        ('{"format": "comir-batch costs", "revision": 0, "stages": []}', "revision 0 of the predictions"),
        ('{"format": "another"}', "damaged, or none of ours"),
        ("{", "damaged, or none of ours"),
    ],
)
def test_a_run_that_does_not_tell_is_refused(layout, content, message):
    layout.root.mkdir()
    if content is not None:
        layout.costs.write_text(content)
    with pytest.raises(RunDirectoryError, match=message):
        read_rates(layout.root)
    assert cost.REVISION > 0


def test_sizes_are_those_of_all_files(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes(500))
    assert size_mb([tmp_path / "folder", tmp_path / "b", tmp_path / "none"]) == 0.0015


def test_hours_are_spread_over_the_jobs_of_a_profile_and_are_no_less_than_the_longest_task():
    stage = replace(stage_plan("register", [], "cpu"), resource="cpu", cpu_s=36000.0, longest_s=7200.0)
    gpu = replace(stage, stage="represent", resource="gpu", device="cuda")
    plan = Plan(5, (stage, gpu), 100.0, cpu_jobs=4)
    assert plan.spread() == pytest.approx((2.5, 2.0))
    assert replace(plan, cpu_jobs=100).spread() == pytest.approx((2.0, 2.0))
    rated = replace(plan, rates={("register", "cpu"): Rate(3.0, 2.0)})
    assert rated.spread() == pytest.approx((5.0, 4.0))
