"""The image on a real SLURM: the driver on the host, GPU and CPU workers in the container, real slides."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pairs
import pytest
import runs
from cluster_runs import ClusterRun, workers_of_tasks
from slurm_cluster import SlurmCluster, unavailable

from comir_batch.core.profile import Profile
from comir_batch.pipeline.profiles import to_toml

if TYPE_CHECKING:
    from pathlib import Path

# The quality of a registration is not the point here, its sameness is.
QUICK = ("register.iterations=60", "register.samples=1024")
STAGES = ("chunk", "represent", "register", "judge", "warp", "export", "report")
NAMES = ("whole", "turned", "mirrored", "raw")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A real SLURM; the tests of the image need no other part of tests/cluster."""
    if reason := unavailable():
        pytest.skip(reason)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, ndpi_pair):
    """Four pairs of real slides."""
    return pairs.write_pairs(tmp_path_factory.mktemp("four pairs"), ndpi_pair)


def command(manifest: Path, out: Path, *options: str) -> list[str]:
    settings = [word for setting in QUICK for word in ("--set", setting)]
    return [str(runs.PROGRAM), "run", str(manifest), "--out", str(out), *settings, *options]


def profile(path: Path, sif: Path, apptainer: Path) -> Path:
    job = {"cpus": 1, "memory_gb": 3.5, "walltime": "30"}
    site = {
        "image": str(sif),
        "prologue": [f'export PATH="{apptainer.parent}:$PATH"'],
        "driver_host": "127.0.0.1",
        "interface": "lo",
        "poll_s": 2,
        "cpu": {**job, "partition": "cpu", "jobs": 2},
        "gpu": {**job, "partition": "gpu", "gres": "gpu:1", "jobs": 1, "device": "cpu", "idle_s": 10},
    }
    path.write_text(to_toml(Profile.model_validate(site)), encoding="utf-8")
    return path


@pytest.mark.timeout(1500)
def test_pairs_run_on_slurm_in_the_image_with_the_result_of_one_machine(slurm, sif, apptainer, manifest, tmp_path):
    out = tmp_path / "on slurm"
    options = ("--executor", "slurm", "--profile", str(profile(tmp_path / "site.toml", sif, apptainer)))
    run = ClusterRun(slurm, command(manifest, out, *options), out)
    partitions = set()
    try:
        while run.process.poll() is None:
            partitions |= {job.partition for job in slurm.jobs()}
            time.sleep(1)
    finally:
        run.finish_off()
    assert run.process.returncode == 0, run.text
    assert partitions == {"cpu", "gpu"}
    assert slurm.jobs() == []
    kinds = {stage: {worker.split("-")[0] for s, worker in workers_of_tasks(out) if s == stage} for stage in STAGES}
    assert "gpu" in kinds.pop("represent")
    assert set.union(*kinds.values()) == {"cpu"}
    assert all("apptainer exec" in path.read_text() for path in (out / "cluster" / "jobs").glob("?pu-[0-9]*.sh"))
    assert subprocess.run(command(manifest, tmp_path / "here", "--device", "cpu"), check=False).returncode == 0
    for name in NAMES:
        runs.assert_same_result(out, tmp_path / "here", name)
    verdicts = [
        {pair: row["verdict"] for pair, row in runs.results(folder).items()} for folder in (out, tmp_path / "here")
    ]
    assert verdicts[0] == verdicts[1]
    assert set(verdicts[0]) == set(NAMES)
