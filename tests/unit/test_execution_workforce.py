"""Workers that somebody else looks after."""

from __future__ import annotations

import pytest

from comir_batch.core.errors import NoWorkersError
from comir_batch.core.task import Resource
from comir_batch.execution.workforce import FixedWorkforce, Need, Seat

CPU, GPU = Resource.CPU, Resource.GPU


def test_a_worker_that_was_told_to_end_is_not_its_tasks_fault(tmp_path):
    workforce = FixedWorkforce(1.0, lambda name: tmp_path / name)
    (tmp_path / "cpu-1").touch()
    assert workforce.explain("cpu-1").blameless
    assert not workforce.explain("cpu-2").blameless
    assert not FixedWorkforce(1.0).explain("cpu-1").blameless


def test_the_largest_worker_is_what_a_task_can_have():
    seats = [Seat("a", "x", CPU, 1, 1000), Seat("b", "y", CPU, 1, 3000), Seat("c", "z", GPU, 1, 0)]
    workforce = FixedWorkforce(1.0)
    assert workforce.largest_mb(CPU, seats) == 3000
    assert workforce.largest_mb(GPU, seats) == 0


def test_nobody_waits_for_a_missing_kind_while_others_work():
    workforce = FixedWorkforce(0.0)
    workforce.tend([Need(GPU, 0)], [], {"cpu-1"})
    workforce.tend([Need(GPU, 0)], [], {"cpu-1"})
    with pytest.raises(NoWorkersError, match="no gpu worker"):
        workforce.tend([Need(GPU, 0)], [], ())
