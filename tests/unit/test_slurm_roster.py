"""Which jobs of SLURM are wanted, missing, of no use."""

from __future__ import annotations

import pytest

from comir_batch.core.profile import GpuJobs, Jobs
from comir_batch.core.task import Resource
from comir_batch.execution.slurm.commands import QueuedJob
from comir_batch.execution.slurm.roster import Member, Roster, Size
from comir_batch.execution.workforce import Need, Seat

CPU, GPU = Resource.CPU, Resource.GPU
KINDS = {CPU: Jobs(memory_gb=4, max_memory_gb=10, jobs=3, idle_s=60), GPU: GpuJobs(memory_gb=8, jobs=2, idle_s=10)}


@pytest.fixture
def roster():
    return Roster(KINDS, {CPU: 1, GPU: 2})


def seat(kind, memory_mb):
    return Seat("w", "tls://10.0.0.1:1", kind, 1, memory_mb)


def hire(roster, name, size, at=0.0, job_id="1"):
    roster.add(Member(name, size.kind, size.memory_mb, job_id, at))


def test_sizes_double_up_to_the_most_that_the_site_allows(roster):
    assert roster.sizes(CPU) == [4096, 8192, 10240]
    assert roster.sizes(GPU) == [8192]


def test_a_job_is_asked_for_each_task_up_to_the_number_of_the_site(roster):
    assert roster.missing([Need(CPU, 0)]) == [Size(CPU, 4096)]
    assert roster.missing([Need(CPU, 0)] * 10) == [Size(CPU, 4096)] * 3


def test_a_worker_with_two_slots_serves_two_tasks(roster):
    assert roster.missing([Need(GPU, 0)] * 2) == [Size(GPU, 8192)]
    assert roster.missing([Need(GPU, 0)] * 3) == [Size(GPU, 8192)] * 2


def test_jobs_that_were_asked_for_are_not_asked_for_again(roster):
    hire(roster, "cpu-1", Size(CPU, 4096))
    assert roster.missing([Need(CPU, 0)]) == []
    assert roster.missing([Need(CPU, 0)] * 2) == [Size(CPU, 4096)]


def test_a_task_that_needs_more_memory_gets_a_larger_job(roster):
    assert roster.missing([Need(CPU, 5000)]) == [Size(CPU, 8192)]
    assert roster.missing([Need(CPU, 9000)]) == [Size(CPU, 10240)]


def test_the_memory_of_a_job_is_shared_by_its_slots():
    roster = Roster({GPU: GpuJobs(memory_gb=8, max_memory_gb=16)}, {GPU: 2})
    assert roster.missing([Need(GPU, 5000)]) == [Size(GPU, 16384)]


def test_one_larger_job_comes_on_top_of_small_ones_that_idle(roster):
    for number in range(3):
        hire(roster, f"cpu-{number}", Size(CPU, 4096))
    assert roster.missing([Need(CPU, 5000)] * 2) == [Size(CPU, 8192)]


def test_workers_are_seen_once_and_idle_after_their_last_task(roster):
    hire(roster, "cpu-1", Size(CPU, 4096))
    assert [member.name for member in roster.note({"cpu-1"}, {"cpu-1"}, 100.0)] == ["cpu-1"]
    assert roster.note({"cpu-1"}, (), 150.0) == []
    assert roster.idle([], 159.0) == []
    assert [member.name for member in roster.idle([], 161.0)] == ["cpu-1"]


def test_a_worker_that_is_still_wanted_is_not_idle(roster):
    for name in ("cpu-1", "cpu-2"):
        hire(roster, name, Size(CPU, 4096))
    assert roster.idle([Need(CPU, 0)] * 2, 1000.0) == []
    assert [member.name for member in roster.idle([Need(CPU, 0)], 1061.0)] == ["cpu-1"]


def test_a_worker_that_does_not_come_back_is_taken_off(roster):
    hire(roster, "cpu-1", Size(CPU, 4096))
    hire(roster, "cpu-2", Size(CPU, 4096))
    roster.note({"cpu-1"}, (), 10.0)
    assert roster.take_absent(309.0, 300.0) == []
    assert [member.name for member in roster.take_absent(311.0, 300.0)] == ["cpu-1"]
    assert list(roster.members) == ["cpu-2"]  # which may still wait in the queue


def test_jobs_that_left_the_queue_have_ended_unless_they_are_newer_than_the_look_at_it(roster):
    hire(roster, "cpu-1", Size(CPU, 4096), at=0.0, job_id="1")
    hire(roster, "cpu-2", Size(CPU, 4096), at=0.0, job_id="2")
    hire(roster, "cpu-3", Size(CPU, 4096), at=9.0, job_id="3")
    queued = {"2": QueuedJob("2", "cb", "RUNNING", "None", "n1")}
    assert [member.name for member in roster.take_ended(queued, read=10.0)] == ["cpu-1"]
    assert sorted(roster.members) == ["cpu-2", "cpu-3"]


def test_what_is_needed_and_has_no_connected_worker_is_hungry(roster):
    needs = [Need(CPU, 0), Need(CPU, 5000), Need(GPU, 0)]
    assert roster.hungry(needs, [seat(CPU, 4096)]) == [Size(CPU, 8192), Size(GPU, 8192)]
    assert roster.hungry(needs, [seat(CPU, 10240), seat(GPU, 4096)]) == []


def test_a_share_of_odd_memory_is_as_large_as_it_should_be():
    roster = Roster({GPU: GpuJobs(memory_gb=12.3)}, {GPU: 2})
    assert roster.hungry([Need(GPU, 0)], [seat(GPU, 12595 // 2)]) == []


def test_a_job_that_waits_keeps_its_place_when_it_is_not_wanted_for_a_moment(roster):
    hire(roster, "gpu-1", Size(GPU, 8192))
    assert roster.idle([Need(GPU, 0)], 80000.0) == []
    assert roster.idle([], 80001.0) == []
    assert [member.name for member in roster.idle([], 80011.0)] == ["gpu-1"]


def test_a_job_that_runs_without_its_worker_is_taken_off(roster):
    hire(roster, "cpu-1", Size(CPU, 4096), job_id="1")
    roster.note_queue({"1": QueuedJob("1", "cb", "PENDING", "Resources", "")}, 100.0)
    assert roster.take_absent(9000.0, 600.0) == []
    roster.note_queue({"1": QueuedJob("1", "cb", "RUNNING", "None", "n7")}, 9000.0)
    assert roster.take_absent(9500.0, 600.0) == []
    (absent,) = roster.take_absent(9601.0, 600.0)
    assert (absent.name, absent.node, absent.seen) == ("cpu-1", "n7", False)
