"""What it means that a worker ends before it has connected; SLURM's commands are not to be had here."""

from __future__ import annotations

import pytest

from comir_batch.core.errors import NoWorkersError
from comir_batch.core.task import Resource
from comir_batch.execution.slurm.deaths import EarlyDeaths
from comir_batch.execution.slurm.roster import Member
from comir_batch.execution.worker import REFUSED

CPU = Resource.CPU


@pytest.fixture
def deaths(tmp_path):
    said = []
    counted = EarlyDeaths(lambda name: tmp_path / f"{name}.log", said.append)
    counted.said, counted.folder = said, tmp_path
    return counted


def member(name="cpu-1", node="n1"):
    return Member(name, CPU, 4096, "", 0.0, node=node)


def test_the_third_in_a_row_is_the_end_and_its_log_is_told(deaths):
    (deaths.folder / "cpu-1.log").write_text("module: not found\n")
    deaths.add(member(), others=False)
    deaths.add(member(), others=False)
    with pytest.raises(NoWorkersError, match="module: not found"):
        deaths.add(member(), others=False)


def test_a_worker_that_connects_ends_the_row(deaths):
    for _ in range(5):
        deaths.add(member(), others=False)
        deaths.add(member(), others=False)
        deaths.forget(CPU)
    assert deaths.said == []
    assert deaths.nodes == set()


def test_where_others_are_well_the_node_is_avoided_and_the_run_goes_on(deaths):
    for _ in range(4):
        deaths.add(member(node="bad7"), others=True)
    assert deaths.nodes == {"bad7"}
    assert "bad7" in deaths.said[0]


def test_a_refusal_is_the_end_at_once_unless_others_are_well(deaths):
    (deaths.folder / "cpu-1.log").write_text(f"{REFUSED} no CUDA device is visible\n")
    deaths.add(member(), others=True)
    assert "no CUDA device" in deaths.said[0]
    with pytest.raises(NoWorkersError, match="no CUDA device"):
        deaths.add(member(), others=False)
