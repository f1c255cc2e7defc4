"""Whatever befalls the driver, the same command ends with the result of an undisturbed run, or says what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cluster_runs
import pytest
import runs
from cluster_runs import NETWORK, RAW

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DRIVER_SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "driver.sbatch"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"cpu": {"partition": "nowhere"}},
            "the cpu workers' job: sbatch: error: invalid partition specified: nowhere",
        ),
        (
            {"gpu": {"partition": "nowhere"}},
            "the gpu workers' job: sbatch: error: invalid partition specified: nowhere",
        ),
        ({"cpu": {"gres": "gpu:1"}}, "the cpu workers' job: allocation failure: Requested node configuration is not"),
        ({"gpu": {"gres": "gpu:9"}}, "the gpu workers' job: allocation failure: Requested node configuration is not"),
    ],
)
def test_what_sbatch_refuses_is_told_in_its_words_before_anything_is_run(slurm, start, site_profile, settings, reason):
    run = start("both", site_profile(**settings))
    cluster_runs.assert_ended_with(run, 5, reason)
    assert not slurm.jobs(run.job_name, ended=True)
    assert not runs.tasks(run.out)


def test_jobs_that_wait_in_vain_are_told_with_slurms_reason_and_given_up(start, site_profile):
    run = start("raw", site_profile(cpu={"partition": "closed"}, poll_s=1), "--queue-timeout", "8")
    cluster_runs.assert_ended_with(
        run,
        5,
        "waiting in SLURM's queue, by its reason: PartitionDown\n",
        "comir-batch: no cpu worker came within 8 s",
        "by its reason: PartitionDown\n",
    )
    assert not runs.tasks(run.out)


def test_jobs_that_no_waiting_helps_are_told_at_once(start, site_profile):
    run = start("raw", site_profile(cpu={"walltime": "05:00:00"}))
    cluster_runs.assert_ended_with(run, 5, "would wait for ever, by SLURM's reason: PartitionTimeLimit. Check")
    assert not runs.tasks(run.out)


def test_killed_with_9_its_workers_end_and_the_same_command_resumes(slurm, start, site_profile, undisturbed):
    profile = site_profile()
    first = start("raw", profile)
    first.wait_for_worker(first.registering)
    first.kill()
    slurm.wait_for(lambda: not first.jobs() and not cluster_runs.processes(first), 60)

    second = start("raw", profile)
    second.wait_until(runs.happened(second.out, "task_done", "warp", 2))
    left = [job.id for job in second.jobs()]
    second.kill()

    third = start("raw", profile)
    cluster_runs.assert_as_undisturbed(third, undisturbed, RAW)
    assert left
    assert max(Counter(runs.tasks(third.out)).values()) == 1, "a finished task was run again"
    assert len(runs.tasks(third.out)) == len(set(runs.tasks(third.out)))


def test_ctrl_c_cancels_the_jobs_and_the_same_command_resumes(start, site_profile, undisturbed):
    profile = site_profile()
    stopped = start("raw", profile)
    stopped.wait_for_worker(stopped.registering)
    os.killpg(stopped.process.pid, signal.SIGINT)
    cluster_runs.assert_ended_with(stopped, 130, "stopping in order", "the same command resumes the run")
    assert "register" not in runs.stages(runs.tasks(stopped.out))
    cluster_runs.assert_as_undisturbed(start("raw", profile), undisturbed, RAW)


def test_before_its_walltime_it_lets_running_tasks_end(start, site_profile, undisturbed):
    profile = site_profile()
    stopped = start("raw", profile)
    stopped.wait_for_worker(stopped.registering)
    stopped.process.send_signal(signal.SIGUSR1)
    cluster_runs.assert_ended_with(stopped, 75, "the same command resumes the run")
    assert runs.stages(runs.tasks(stopped.out)) == {"chunk", "register"}
    cluster_runs.assert_as_undisturbed(start("raw", profile), undisturbed, RAW)


def test_as_a_job_it_goes_back_to_the_queue_before_its_walltime_and_ends_there(
    slurm, inputs, site_profile, undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setitem(slurm.env, "PATH", f"{Path(sys.executable).parent}:{slurm.env['PATH']}")
    out = tmp_path / "run"
    _, _, *words = cluster_runs.command(inputs / "raw.csv", out, site_profile())
    drained = runs.happened(out, "job_started", "register")
    # Of the profile's partition of small jobs; the workers' nodes have room for it.
    job = slurm.sbatch("--time=10", "--mem=500", DRIVER_SCRIPT, *words)
    slurm.wait_for(drained, 120)
    slurm.scancel("--signal=USR1", "--batch", job)
    slurm.wait_for(lambda: slurm.job(job).state == "COMPLETED", 240)
    assert "Restarts=1 " in slurm.scontrol("show", "job", "-o", job)
    assert slurm.output(job).count("stopping in order") == 1
    runs.assert_same_result(out, undisturbed, RAW)
    kinds = [event["kind"] for event in cluster_runs.events(out) if event["stage"] in {"", "register"}]
    assert kinds.index("job_done") < kinds.index("run_started", 1), "the task that was running was not let end"
    assert max(Counter(runs.tasks(out)).values()) == 1
    assert not slurm.jobs()


def test_a_second_driver_of_a_run_is_refused_and_the_first_goes_on(start, site_profile, undisturbed):
    profile = site_profile()
    first = start("raw", profile)
    first.wait_for_worker(first.registering)
    second = start("raw", profile)
    assert second.end() == 3
    (line,) = second.text.splitlines()
    assert f"{first.out} is in use by process {first.process.pid} on " in line
    cluster_runs.assert_as_undisturbed(first, undisturbed, RAW)
    assert not first.retried()


@pytest.fixture
def disk(tmp_path):
    """A small file system for a run, whose room `make_room` sets."""
    folder = tmp_path / "run"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], check=False).returncode:  # noqa: S607
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


def make_room(disk: Path, kilobytes: int) -> None:
    """Leave so much room on a small file system."""
    used = shutil.disk_usage(disk).used // 1024
    subprocess.run(["mount", "-o", f"remount,size={used + kilobytes}k", disk], check=True)  # noqa: S607


def test_a_full_disk_stops_the_run_and_the_same_command_resumes_it(start, site_profile, undisturbed, disk):
    shutil.copytree(undisturbed, disk, dirs_exist_ok=True)
    shutil.rmtree(disk / "pairs")
    (disk / "report.html").unlink()
    make_room(disk, 700)
    full = start("both", site_profile(), "--keep-work")
    # A worker meets it first, or the driver; each says it in its own words.
    cluster_runs.assert_ended_with(full, 75, "o space", "left", "Make room; the same command resumes")
    assert len([line for line in full.text.splitlines() if line.startswith("comir-batch:")]) == 1
    make_room(disk, 50_000)
    done = start("both", site_profile(), "--keep-work")
    cluster_runs.assert_as_undisturbed(done, undisturbed, RAW, NETWORK)
