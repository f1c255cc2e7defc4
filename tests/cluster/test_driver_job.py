"""The driver's job passes signals on, goes back to the queue when told so, and ends with the driver's code."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "driver.sbatch"
# Stops as the driver promises to: after a while, with 75 when it was sent USR1 and 143 when it was sent TERM.
DRIVER = """\
#!/bin/sh
echo "started with $*"
[ "$4" = bad.csv ] && exit 3
trap 'echo USR1 came; sleep 1; exit 75' USR1
trap 'echo TERM came; sleep 1; exit 143' TERM
while :; do sleep 0.1; done
"""


@pytest.fixture
def submit(slurm, tmp_path, monkeypatch):
    """Return a function that submits the job, its log where `slurm.output` looks, with a driver that only waits."""
    driver = tmp_path / "bin" / "comir-batch"
    driver.parent.mkdir()
    driver.write_text(DRIVER)
    driver.chmod(0o755)
    monkeypatch.setitem(slurm.env, "PATH", f"{driver.parent}:{slurm.env['PATH']}")

    def start(*options, manifest="my manifest.csv"):
        job = slurm.sbatch("--time=5", *options, SCRIPT, manifest, "--out", "run")
        slurm.wait_for(lambda: "started with" in slurm.output(job))
        return job

    return start


def test_before_its_walltime_it_stops_and_goes_back_to_the_queue(slurm, submit):
    job = submit("--time=1", "--signal=B:USR1@50")
    assert slurm.output(job) == "started with run --executor slurm my manifest.csv --out run\n"
    slurm.wait_for(lambda: slurm.output(job).count("started with") == 2)
    assert slurm.output(job).count("USR1 came") == 1
    assert slurm.job(job).state == "RUNNING"


def test_cancelled_it_tells_the_driver_once_and_stays_away(slurm, submit):
    job = submit()
    slurm.scancel(job)
    slurm.wait_for(lambda: slurm.job(job).state == "CANCELLED" and not slurm.processes(job))
    assert slurm.output(job).count("TERM came") == 1
    assert slurm.output(job).count("started with") == 1


def test_a_driver_that_fails_fails_the_job_with_its_code(slurm, submit):
    job = submit(manifest="bad.csv")
    slurm.wait_for(lambda: slurm.job(job).state == "FAILED")
    assert "ExitCode=3:0" in slurm.scontrol("show", "job", job)
    assert slurm.output(job).count("started with") == 1
