"""A real SLURM for all tests here, and profiles of it."""

from __future__ import annotations

import os
import sys

import cluster_runs
import pytest
import runs
from slurm_cluster import SlurmCluster, unavailable

from comir_batch.core.profile import Profile
from comir_batch.pipeline.profiles import to_toml

# What its fake GPUs can do is nothing, and what its jobs may have is what a small machine has.
SITE = {
    "description": "four virtual nodes on this machine",
    "python": sys.executable,
    "interface": "lo",
    "driver_host": "127.0.0.1",
    "poll_s": 2,
    "cpu": {
        "partition": "cpu",
        "cpus": 1,
        "memory_gb": 3,
        "max_memory_gb": 6,
        "walltime": "10",
        "jobs": 2,
        "idle_s": 60,
    },
    "gpu": {
        "partition": "gpu",
        "gres": "gpu:1",
        "cpus": 1,
        "memory_gb": 3,
        "walltime": "10",
        "jobs": 1,
        "idle_s": 5,
        "device": "cpu",
    },
}


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A real SLURM, made once; skips where none can be had, fails where COMIR_BATCH_REQUIRE_SLURM is 1."""
    if reason := unavailable():
        required = os.environ.get("COMIR_BATCH_REQUIRE_SLURM") == "1"
        (pytest.fail if required else pytest.skip)(reason)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _leave_nothing_behind(slurm):
    yield
    slurm.reset()


@pytest.fixture
def site_profile(tmp_path):
    """Return a function that writes a profile of the SLURM and returns its file.

    Its keyword arguments replace settings, in `cpu` and `gpu` one by one; ``gpu=None`` is a site without GPUs.
    """

    def write(name="testsite", **settings):
        sections = {kind: {**SITE[kind], **(settings.get(kind) or {})} for kind in ("cpu", "gpu")}
        values = {**SITE, **settings, **sections}
        if "gpu" in settings and settings["gpu"] is None:
            values["gpu"] = None
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(Profile.model_validate(values)) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Folder of slides and manifests; see `cluster_runs.make_inputs`."""
    folder = tmp_path_factory.mktemp("slides, with 'quotes' and ä")
    cluster_runs.make_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(inputs, tmp_path_factory):
    """A run of both pairs on this machine, which nothing disturbs; what all others are compared with."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = runs.call(runs.command(inputs / "both.csv", out, "--keep-work"))
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def start(slurm, inputs, tmp_path):
    """Return a function that starts a run: manifest without its ending, profile, options; `out` names its folder."""
    started = []

    def run(manifest, profile, *options, out="run", **sections):
        folder = tmp_path / out
        words = cluster_runs.command(inputs / f"{manifest}.csv", folder, profile, *options, **sections)
        started.append(cluster_runs.ClusterRun(slurm, words, folder))
        return started[-1]

    yield run
    for each in started:
        each.finish_off()
