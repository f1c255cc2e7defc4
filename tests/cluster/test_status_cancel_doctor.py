"""Runs on a real SLURM are watched and stopped from elsewhere, and sites examined."""

from __future__ import annotations

import json
import subprocess

import pytest
import runs

from comir_batch.core.profile import load_profile

pytestmark = [pytest.mark.timeout(300)]


@pytest.fixture
def call(slurm, tmp_path):
    """Return a function that calls `comir-batch` in a folder that the nodes see too."""

    def run(*words):
        line = [str(runs.PROGRAM), *map(str, words)]
        return subprocess.run(
            line, env=slurm.env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )

    return run


def states(result):
    """Return the state of each check of doctor's table, by its name."""
    rows = [line.split("  ") for line in result.stdout.splitlines()[2:-1]]
    return {row[0]: next(cell.strip() for cell in row[1:] if cell) for row in rows}


@pytest.mark.slow
def test_a_run_is_watched_while_it_goes_and_cancelled(start, site_profile, call, slurm):
    run = start("raw", site_profile())
    worker = run.wait_for_worker(run.registering)
    watched = json.loads(call("status", run.out, "--json").stdout)
    assert watched["running"]
    assert watched["driver"].startswith(f"process {run.process.pid} on ")
    assert (worker.job, "RUNNING") in {(job["job_id"], job["state"]) for job in watched["jobs"]}
    assert watched["tasks"]["chunk"]["done"] == watched["tasks"]["chunk"]["planned"] > 2
    assert watched["pairs"] == {"all": 1, "done": 0, "verdicts": {}}
    assert watched["dashboard"].startswith("http://127.0.0.1:")
    assert "running" in call("status", run.out).stdout

    stopped = call("cancel", run.out)
    assert stopped.returncode == 0, stopped.stderr
    assert f"process {run.process.pid} on " in stopped.stdout
    assert "resume with: " in stopped.stdout
    assert run.end() == 143
    slurm.wait_for(lambda: not run.jobs())

    after = call("status", run.out).stdout
    assert "not running since" in after
    assert "no driver is running" in call("cancel", run.out).stdout


@pytest.mark.slow
def test_jobs_that_a_killed_driver_left_are_shown_with_their_reason_and_cancelled(start, site_profile, call, slurm):
    run = start("raw", site_profile(cpu={"partition": "closed", "jobs": 1}))
    run.wait_until(lambda: any(job.state == "PENDING" for job in run.jobs()))
    run.kill()
    shown = call("status", run.out).stdout
    assert "not running since" in shown
    assert "pending (PartitionDown)" in shown
    assert "1 job cancelled" in call("cancel", run.out).stdout
    slurm.wait_for(lambda: not run.jobs())


def test_no_run_is_refused_in_one_line(call, tmp_path):
    for command in ("status", "cancel"):
        result = call(command, tmp_path)
        assert result.returncode == 3
        assert result.stderr.count("\n") == 1
        assert "not a run directory" in result.stderr


def test_a_site_as_its_profile_says_is_well_down_to_its_nodes(site_profile, call, slurm):
    result = call("doctor", "--profile", site_profile(), "--submit")
    assert result.returncode == 0, result.stdout
    assert set(states(result).values()) == {"ok"}
    assert {f"{kind} node: way here" for kind in ("cpu", "gpu")} < set(states(result))
    assert "ssh -N -L 8787:127.0.0.1:8787" in result.stdout
    slurm.wait_for(lambda: not slurm.jobs())


@pytest.mark.parametrize(
    ("kind", "settings", "check", "said"),
    [
        ("gpu", {"partition": "nowhere"}, "gpu partition", "nowhere"),
        ("cpu", {"walltime": "1-00:00:00"}, "cpu partition", "such a job would wait for ever"),
        ("cpu", {"max_memory_gb": 500}, "cpu job of 500 GiB", "node configuration is not available"),
        ("gpu", {"gres": "gpu:7"}, "gpu job of 3 GiB", "SLURM refuses it"),
    ],
)
def test_what_slurm_would_not_take_is_told_in_its_words(site_profile, call, kind, settings, check, said):
    result = call("doctor", "--profile", site_profile(**{kind: settings}))
    assert result.returncode == 3
    assert states(result)[check] == "failed"
    assert said in result.stdout


def test_a_partition_that_is_down_is_a_warning(site_profile, call):
    result = call("doctor", "--profile", site_profile(cpu={"partition": "closed"}))
    assert result.returncode == 0, result.stdout
    assert states(result)["cpu partition"] == "warning"


def test_a_gpu_that_nobody_sees_and_a_job_that_does_not_start_are_told(site_profile, call, slurm):
    profile = site_profile(cpu={"partition": "closed"}, gpu={"device": "cuda"})
    assert load_profile(profile).device == "cuda"
    result = call("doctor", "--profile", profile, "--submit", "--wait", "15")
    assert result.returncode == 3
    assert states(result)["gpu node: GPU"] == "failed"
    assert states(result)["cpu node"] == "warning"
    assert "the job is pending after 15 s (PartitionDown); it was cancelled" in result.stdout
    slurm.wait_for(lambda: not slurm.jobs())
