"""A batch job's share of its node is what local workers divide among themselves."""

from __future__ import annotations

import pytest

from comir_batch.core.config import ExecutionConfig
from comir_batch.execution.allotment import Allotment, allotment
from comir_batch.execution.local import _workers

GIB = 2**30
NODE = Allotment(64, 256 * GIB)


@pytest.mark.parametrize(
    ("job", "cores", "gib"),
    [
        ({}, 64, 256),
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_NODE": "32768"}, 8, 32),
        ({"SLURM_CPUS_ON_NODE": "16"}, 16, 256),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_CPU": "4096"}, 16, 64),
        ({"SLURM_CPUS_PER_TASK": "8", "SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_CPU": "1024"}, 8, 16),
        ({"SLURM_CPUS_ON_NODE": "64", "SLURM_MEM_PER_NODE": "0"}, 64, 256),
        ({"SLURM_CPUS_ON_NODE": "128", "SLURM_MEM_PER_NODE": "999999999"}, 64, 256),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_MEM_PER_NODE": "32G"}, 64, 256),
    ],
)
def test_the_share_is_the_jobs_and_never_more_than_the_machine(job, cores, gib):
    assert allotment(NODE, job) == Allotment(cores, gib * GIB)


def test_local_workers_divide_the_jobs_share(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1500")
    (worker,) = _workers(ExecutionConfig(), tmp_path, {}).values()
    assert worker["options"]["memory_limit"] == 1500 * 2**20
