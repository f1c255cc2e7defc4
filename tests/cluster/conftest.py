"""A real SLURM for all tests here, and profiles of it."""

from __future__ import annotations

import os

import cluster_runs
import pytest
import runs
from sites import write_profile
from slurm_cluster import SlurmCluster, unavailable


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
    """Return a function that writes a profile of the SLURM and returns its file; see `sites.write_profile`."""

    def write(name="testsite", **settings):
        return write_profile(tmp_path / f"{name}.toml", **settings)

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
