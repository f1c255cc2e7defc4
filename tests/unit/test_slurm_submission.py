"""Patience with a controller that refuses; a script on PATH stands for sbatch, as tests/cluster has the real one."""

from __future__ import annotations

import pytest

from comir_batch.core.errors import NoWorkersError
from comir_batch.core.profile import Profile
from comir_batch.core.task import Resource
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm import submission as module
from comir_batch.execution.slurm.roster import Size
from comir_batch.execution.slurm.script import Site
from comir_batch.execution.slurm.submission import Submission

CPU = Resource.CPU
SMALL, LARGE = Size(CPU, 1024), Size(CPU, 8192)


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Return a function that says what sbatch does: refuse jobs of 8 GiB, all jobs, or none."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    def behave(refused: str) -> None:
        program.write_text(
            f'#!/bin/sh\nfor script; do :; done\nif grep -q "mem={refused}" "$script"; then\n'
            "    echo 'sbatch: error: Socket timed out' >&2; exit 1\nfi\necho 'Welcome to site 7'; echo 42\n"
        )
        program.chmod(0o755)

    return behave


@pytest.fixture
def said():
    return []


@pytest.fixture
def submission(tmp_path, said):
    files = ClusterFiles(tmp_path, tmp_path / "cluster", tmp_path / "logs")
    return Submission(Site(Profile(), files, ()), "tls://127.0.0.1:1", "cb-1", said.append)


def test_the_id_is_read_below_a_sites_banner(submission, sbatch):
    sbatch("nothing")
    (member,) = submission.submit([SMALL], (), ())
    assert member.job_id == "42"
    assert submission.ids == {member.name: "42"}


def test_a_refused_size_waits_and_the_others_do_not(submission, sbatch, said):
    sbatch("8192M")
    assert submission.submit([LARGE, SMALL], (), ()) == []
    assert "Socket timed out" in said[0]
    assert [member.memory_mb for member in submission.submit([LARGE, SMALL], (), ())] == [1024]
    assert len(said) == 1


def test_refusals_are_the_end_only_after_long_and_without_a_worker(submission, sbatch, monkeypatch):
    sbatch("1024M")
    monkeypatch.setattr(module, "_AFTER_REFUSAL_S", 0.0)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.0)
    assert submission.submit([SMALL], (), ()) == []
    assert submission.submit([SMALL], (), {CPU}) == []
    with pytest.raises(NoWorkersError, match="Socket timed out"):
        submission.submit([SMALL], (), ())


def test_nodes_to_keep_away_from_stand_in_the_script(submission, sbatch, tmp_path):
    sbatch("nothing")
    (member,) = submission.submit([SMALL], {"n7", "n3"}, ())
    script = (tmp_path / "cluster" / "jobs" / f"{member.name}.sh").read_text()
    assert "#SBATCH --exclude=n3,n7" in script.splitlines()
