"""Rendered scripts, submitted as they are, run to the end on a real SLURM, whatever happens to the driver's job."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import runs
from cluster_runs import RAW, events

from comir_batch.execution.start import job_name
from comir_batch.pipeline.layout import Layout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Rendered:
    """Scripts of a run of the pair `RAW`.

    Parameters
    ----------
    slurm : SlurmCluster
        Where they are submitted.
    folder : Path
        Of the scripts.
    """

    def __init__(self, slurm, folder):
        self.slurm, self.folder = slurm, folder
        self.layout = Layout((folder / "run").resolve())
        self.name = job_name(self.layout.root)
        self.driver = ""

    def submit(self):
        """Submit all, from another folder."""
        done = self.script("submit.sh")
        assert done.returncode == 0, done.stderr
        self.driver = re.search(r"driver: job (\d+)", done.stdout)[1]

    def script(self, name):
        """Run one of the scripts that a user calls, as a user without our Python on PATH would."""
        environment = {**self.slurm.env, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        words = ["/bin/sh", str(self.folder / name)]
        return subprocess.run(words, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)

    def edit(self, name, old, new):
        """Replace a text of a script."""
        path = self.folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def wait_for(self, true):
        """Wait, and tell what the jobs have printed if it never comes."""
        try:
            self.slurm.wait_for(true, 400)
        except TimeoutError as error:
            error.add_note(self.printed())
            raise

    def printed(self, pattern="*"):
        """Return what the jobs have printed."""
        return "\n".join(path.read_text() for path in sorted(self.layout.worker_logs.glob(f"{pattern}.log")))

    def happened(self, kind, stage=""):
        """Tell whether an event has been published."""
        return any(event["kind"] == kind and event["stage"] == stage for event in events(self.layout.root))

    def registering(self):
        """Tell whether a registration is under way in elastix."""
        found = self.happened("job_started", "register")
        return found and any("elastix_child" in _words(pid) for job in self.jobs() for pid in self.slurm.processes(job))

    def jobs(self):
        """Return the ids of the run's jobs that run; those of an array's jobs as their processes know them."""
        lines = self.slurm.call("squeue", "--noheader", "--array", "--format=%A|%T", f"--name={self.name}").splitlines()
        return [line.split("|")[0] for line in lines if line.endswith("RUNNING")]

    def assert_ended(self, state="COMPLETED"):
        """Check that all ended, the driver in some state, and nothing is left."""
        self.wait_for(lambda: not self.slurm.jobs(self.name))
        assert self.slurm.job(self.driver).state == state, self.printed("driver*")
        assert not list((self.layout.cluster.tls).iterdir())
        assert not self.layout.cluster.scheduler.exists()


def _words(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.fixture
def rendered(slurm, inputs, site_profile, tmp_path):
    """Return a function that renders a run; settings are those of the profile."""

    def make(*options, **settings):
        folder = tmp_path / "jobs of 'mine' at 5%"
        words = runs.command(
            inputs / "raw.csv", folder, "--profile", str(site_profile(**settings)), *options, execution={"workers": 0}
        )
        words[1] = "render"
        done = runs.call(words)
        assert done.returncode == 0, done.stderr
        return Rendered(slurm, folder)

    return make


def test_submitted_as_they_are_they_run_to_the_end(rendered, undisturbed):
    run = rendered()
    run.submit()
    again = run.script("submit.sh")
    assert again.returncode == 1
    assert "in the queue already" in again.stderr
    run.wait_for(run.layout.cluster.scheduler.exists)
    assert run.layout.cluster.scheduler.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in run.layout.cluster.tls.iterdir()} == {0o600}
    assert run.layout.cluster.tls.stat().st_mode & 0o777 == 0o700
    run.assert_ended()
    runs.assert_same_result(run.layout.root, undisturbed, RAW)
    assert not runs.leftovers(run.layout.root)


def test_a_driver_that_is_requeued_in_the_middle_goes_on(rendered, undisturbed, slurm):
    run = rendered()
    run.submit()
    run.wait_for(run.registering)
    slurm.scontrol("requeue", run.driver)
    run.assert_ended()
    assert run.printed("driver*").count("dashboard:") == 2
    runs.assert_same_result(run.layout.root, undisturbed, RAW)
    started = [event for event in events(run.layout.root) if event["kind"] == "job_started"]
    assert sum(event["stage"] == "chunk" for event in started) == 2  # of two slides, and by the first driver alone


def test_a_driver_whose_walltime_is_near_goes_back_to_the_queue_by_itself(rendered, undisturbed, slurm):
    run = rendered("--set", "execution.drain_s=0")
    run.submit()
    run.wait_for(run.registering)
    slurm.scancel("--batch", "--signal=USR1", run.driver)
    run.assert_ended()
    printed = run.printed("driver*")
    assert "this job goes back to the queue" in printed
    assert printed.count("dashboard:") == 2
    runs.assert_same_result(run.layout.root, undisturbed, RAW)


def test_workers_whose_walltime_is_near_go_back_to_the_queue(rendered, undisturbed, slurm):
    run = rendered(cpu={"jobs": 1})
    run.submit()
    run.wait_for(run.registering)
    (worker,) = [job.id for job in slurm.jobs(run.name) if job.id != run.driver and job.partition == "cpu"]
    slurm.scancel("--batch", "--signal=USR1", worker)
    run.assert_ended()
    assert run.happened("task_retried", "register")
    workers = {line["worker"] for line in runs.lines(run.layout.records) if line["kind"] == "task"}
    assert {name.split("-")[2] for name in workers if name.startswith("cpu")} == {"0", "1"}
    runs.assert_same_result(run.layout.root, undisturbed, RAW)


def test_of_three_workers_the_one_whose_walltime_is_near_goes_back_alone(rendered, slurm):
    run = rendered(cpu={"jobs": 3}, gpu=None)
    run.submit()
    run.wait_for(lambda: run.printed("cpu-*").count("Registered to:") == 3)
    asked = ("--noheader", "--array", "--states=RUNNING", "--format=%i|%A|%P", f"--name={run.name}")
    rows = [line.split("|") for line in slurm.call("squeue", *asked).splitlines()]
    # The job that has the id of the whole array.
    (leader,) = [name for name, job, partition in rows if partition == "cpu" and name.startswith(f"{job}_")]
    array, _, task = leader.partition("_")

    def restarts():
        lines = slurm.scontrol("show", "job", "-o", array).splitlines()
        shown = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {job["ArrayTaskId"]: int(job["Restarts"]) for job in shown}

    slurm.scancel("--batch", "--signal=USR1", leader)
    run.wait_for(lambda: restarts().get(task) == 1)
    assert restarts() == {each: int(each == task) for each in "123"}
    assert run.script("cancel.sh").returncode == 0
    run.wait_for(lambda: not slurm.jobs(run.name))


def test_cancelled_it_leaves_nothing_and_is_resumed_by_the_same_script(rendered, undisturbed):
    run = rendered()
    run.submit()
    run.wait_for(run.registering)
    assert run.script("cancel.sh").returncode == 0
    run.wait_for(lambda: not run.slurm.jobs(run.name))
    done = len(runs.tasks(run.layout.root))
    run.submit()
    run.assert_ended()
    assert not runs.stages(runs.tasks(run.layout.root)[done:]) & {"chunk"}
    runs.assert_same_result(run.layout.root, undisturbed, RAW)


def test_workers_of_another_version_end_the_run_with_one_message(rendered):
    run = rendered(gpu=None)
    run.edit("cpu-worker.sbatch", "--comir-batch-version ", "--comir-batch-version 9")
    run.submit()
    run.assert_ended("FAILED")
    printed = run.printed("driver*").splitlines()
    assert "no cpu worker would start; why stands at the end of" in printed[-1]
    log = Path(printed[-1].rpartition(" at the end of ")[2])
    assert "comir-batch is" in log.read_text()
    assert run.slurm.scontrol("show", "job", run.driver).count("ExitCode=5:0") == 1


def test_where_workers_are_refused_the_driver_does_not_stay(rendered, slurm):
    run = rendered(gpu={"partition": "nowhere"})
    done = run.script("submit.sh")
    assert done.returncode == 1
    assert "invalid partition specified: nowhere" in done.stderr
    assert "the gpu workers were refused" in done.stderr
    slurm.wait_for(lambda: not slurm.jobs(run.name))
