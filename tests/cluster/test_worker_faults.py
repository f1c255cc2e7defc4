"""Whatever befalls the workers, a run on SLURM ends with the result of an undisturbed one, or says what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import cluster_runs
import cluster_tasks
import psutil
import pytest
import runs
from cluster_runs import NETWORK, RAW
from cluster_tasks import PROLOGUE, Calls, Notes, nap, take

import comir_batch
from comir_batch.core.config import ExecutionConfig
from comir_batch.core.profile import load_profile
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm.executor import slurm_executor
from comir_batch.execution.slurm.script import Site
from comir_batch.execution.stop import StopRequest
from comir_batch.pipeline.scheduler import Scheduler

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

JOB_NAME = "cb-tasks"
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def drive(slurm, site_profile, tmp_path, monkeypatch):
    """Return a function that runs work, one pair after the other, on workers of a profile; returns what came of it."""
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    files = ClusterFiles(tmp_path / "run", tmp_path / "run" / "cluster", tmp_path / "run" / "logs")

    def run(works, **settings):
        site = Site(load_profile(site_profile(prologue=PROLOGUE, **settings)), files, ())
        notes, jobs = Notes(), [cluster_tasks.job(pair, work) for pair, work in works.items()]
        scheduler = Scheduler(
            {job.key: job for job in jobs}, frozenset(), {}, list(works), notes, in_flight=1, retries=2
        )
        executor = slurm_executor(ExecutionConfig(), site, stop=StopRequest(), say=print, job_name=JOB_NAME)
        try:
            executor.run(scheduler)
        finally:
            executor.close()
        slurm.wait_for(lambda: not slurm.jobs(JOB_NAME), 15)
        return notes

    return run


@pytest.fixture
def larger_elastix(tmp_path):
    """Return a profile's prologue after which elastix' process holds 800 MB more than estimates know of."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('elastix_child' in word for word in sys.orig_argv):\n"
        "    sys.held = bytearray(b'x') * 800_000_000\n"
    )
    return (f"export PYTHONPATH='{site}'",)


@pytest.fixture
def memory_group():
    """Return a function that confines processes to what they have and so much more; SLURM's cgroups do the same."""
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    mine = next((MEMORY_GROUPS / group.lstrip("/") for _, kind, group in groups if kind == "memory"), None)
    if mine is None or not os.access(mine / "cgroup.procs", os.W_OK):
        pytest.skip("this machine has no control groups of version 1 for memory that can be written")
    group = mine / f"comir-batch-test-{os.getpid()}"
    group.mkdir()

    def confine(pids, megabytes):
        (group / "memory.limit_in_bytes").write_text(f"{megabytes}M")
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        return group

    yield confine
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (mine / "cgroup.procs").write_text(pid)
    group.rmdir()


def freeze(worker):
    """Stop what registers, so that the fault meets it in the middle, however fast or slow the machine is."""
    return stopped([worker.process, *(child.pid for child in psutil.Process(worker.process).children())])


def stopped(pids):
    """Stop processes and return them."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


@pytest.mark.parametrize("whole_job", [False, True], ids=["worker", "job"])
def test_killed_while_it_registers(start, site_profile, undisturbed, whole_job):
    run = start("raw", site_profile())
    victim = run.wait_for_worker(run.registering)
    for pid in victim.pids if whole_job else [victim.process]:
        os.kill(pid, signal.SIGKILL)
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW)
    (retried,) = run.retried()
    assert retried["stage"] == "register"
    assert (
        f"the worker was lost: killed, out of memory, or its machine gone (see {run.out}" in retried["data"]["message"]
    )
    assert f"{retried['data']['task']} is tried again" in run.text


def test_preempted_while_it_represents(start, site_profile, undisturbed, slurm):
    run = start("network", site_profile())
    run.wait_until(lambda: any(worker.startswith("gpu-") for _, worker in cluster_runs.workers_of_tasks(run.out)))
    (victim,) = run.workers("gpu")
    freeze(victim)  # SLURM takes its time, and the networks of a small pair do not
    slurm.sbatch("--partition=urgent", "--gres=gpu:1", f"--nodelist={victim.node}", "--wrap", "sleep 1")
    cluster_runs.assert_as_undisturbed(run, undisturbed, NETWORK)
    assert slurm.job(victim.job).state == "PREEMPTED"
    reasons = {(event["stage"], event["data"]["message"]) for event in run.retried()}
    assert reasons
    assert reasons <= {
        ("represent", "the worker's job was preempted"),
        ("represent", "the worker's job was told to end"),
        ("represent", "its worker left"),
    }


def test_its_node_is_set_down(start, site_profile, undisturbed, slurm):
    run = start("raw", site_profile())
    victim = run.wait_for_worker(run.registering)
    slurm.set_node(victim.node, "down")
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW)
    assert slurm.job(victim.job).state == "NODE_FAIL"
    # Twice where the other worker was on the same node.
    reasons = {event["data"]["message"] for event in run.retried()}
    assert reasons
    assert reasons <= {"the worker's node failed", "the worker's job was told to end"}
    (worker,) = [worker for task, worker in cluster_runs.finished_tasks(run.out) if task.startswith("register")]
    assert worker != victim.name


def test_the_walltime_of_its_job_is_reached(start, site_profile, undisturbed, slurm):
    run = start("raw", site_profile())
    victim = run.wait_for_worker(run.registering)
    freeze(victim)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 1))
    slurm.scontrol("update", f"jobid={victim.job}", f"EndTime={soon}")
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW)
    assert slurm.job(victim.job).state == "TIMEOUT"
    (retried,) = run.retried()
    assert retried["stage"] == "register"
    assert retried["data"]["message"] in {"the worker's job reached its walltime", "the worker's job was told to end"}


def test_it_leaves_before_its_walltime_and_its_task_goes_to_another(drive):
    """Of twenty seconds it takes tasks for fifteen."""
    notes = drive({"p": Calls(nap, (2.0,) * 11)}, cpu={"walltime": "00:20", "jobs": 1}, gpu=None)
    assert len(notes.values["p"]) == 11
    assert len(set(notes.values["p"])) >= 2
    assert all(outcome.blameless for outcome in notes.retried.get("p", ()))
    assert not notes.failed


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prologue": ("echo the module is broken >&2", "exit 1")}, "    the module is broken"),
        ({"python": "/no/such/python"}, "/no/such/python: not found"),
    ],
    ids=["prologue", "python"],
)
def test_workers_die_at_the_start(start, site_profile, slurm, settings, said):
    run = start("raw", site_profile(cpu={"jobs": 1}, poll_s=1, **settings))
    cluster_runs.assert_ended_with(run, 5, "comir-batch: 3 cpu workers in a row ended before they connected; ", said)
    assert len(slurm.jobs(run.job_name, ended=True)) == 3


def test_a_worker_of_another_version_is_refused(start, site_profile, slurm, tmp_path):
    other = shutil.copytree(Path(comir_batch.__file__).parent, tmp_path / "other" / "comir_batch")
    init = other / "__init__.py"
    init.write_text(init.read_text().replace(comir_batch.__version__, "99.1"))
    run = start("raw", site_profile(cpu={"jobs": 1}, poll_s=1, prologue=(f"export PYTHONPATH='{other.parent}'",)))
    said = f"a cpu worker would not start: comir-batch is 99.1 here and {comir_batch.__version__} at the driver"
    cluster_runs.assert_ended_with(run, 5, said)
    assert len(slurm.jobs(run.job_name, ended=True)) == 1


def test_a_gpu_worker_without_a_cuda_device_refuses(start, site_profile, slurm):
    run = start("network", site_profile(gpu={"device": "cuda"}, poll_s=1))
    cluster_runs.assert_ended_with(
        run, 5, "a gpu worker would not start: no CUDA device is visible on", 'say device = "cpu" in the profile'
    )
    assert [job.partition for job in slurm.jobs(run.job_name, ended=True)].count("gpu") == 1


def test_out_of_memory_it_is_tried_again_in_a_larger_job(start, site_profile, undisturbed, slurm, larger_elastix):
    """Registering takes more than its estimate, which fits the smaller job."""
    sizes = {"memory_gb": 1.15, "max_memory_gb": 2, "jobs": 1}
    run = start("raw", site_profile(cpu=sizes, gpu=None, prologue=larger_elastix))
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW)
    retried = run.retried()
    assert {event["stage"] for event in retried} == {"register"}
    assert "out of memory: it took 1" in retried[0]["data"]["message"]
    assert "and had 1178 MB" in retried[0]["data"]["message"]
    ids = ",".join(job.id for job in slurm.jobs(run.job_name, ended=True))
    assert slurm.call("squeue", "--noheader", "--states=all", f"--jobs={ids}", "--format=%m").split() == ["1178M", "2G"]


def test_out_of_memory_in_the_largest_job_is_the_pairs_error(start, site_profile, larger_elastix):
    sizes = {"memory_gb": 1.15, "max_memory_gb": 1.15, "jobs": 1}
    run = start("raw", site_profile(cpu=sizes, gpu=None, prologue=larger_elastix))
    cluster_runs.assert_ended_with(run, 4, "register: out of memory: it took 1", "and had 1178 MB", "max_memory_gb")


def test_memory_is_found_for_each_task_or_refused_to_it_alone(drive):
    works = {
        "small": Calls(take, (20, 20)),
        "more": Calls(take, (400,)),
        "known": Calls(take, (20,), memory_mb=600),
        "endless": Calls(take, (900,)),
        "last": Calls(take, (20,)),
    }
    notes = drive(works, cpu={"memory_gb": 0.4, "max_memory_gb": 0.7, "jobs": 1}, gpu=None)
    had = {pair: {value["worker_mb"] for value in values} for pair, values in notes.values.items()}
    assert had == {"small": {410}, "more": {717}, "known": {717}, "last": {410}}
    assert {pair: len(outcomes) for pair, outcomes in notes.retried.items()} == {"more": 1, "endless": 1}
    assert all(outcome.out_of_memory for outcomes in notes.retried.values() for outcome in outcomes)
    assert set(notes.failed) == {"endless"}
    assert re.match(r"out of memory: it took \d+ MB and had 717 MB", notes.failed["endless"])
    assert {value["threads"] for values in notes.values.values() for value in values} == {"1"}


def test_killed_by_the_kernel_for_memory(start, site_profile, undisturbed, memory_group):
    run = start("raw", site_profile())
    victim = run.wait_for_worker(run.registering)
    frozen = freeze(victim)
    group = memory_group(victim.pids, megabytes=32)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    run.wait_until(lambda: "oom_kill 0" not in (group / "memory.oom_control").read_text())
    (group / "memory.limit_in_bytes").write_text("-1")
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW)
    assert run.retried()[0]["stage"] == "register"
    assert re.search("out of memory|the worker was lost: killed", run.retried()[0]["data"]["message"])


def test_each_kind_does_its_own_and_idle_gpus_go_back(start, site_profile, undisturbed):
    run = start("both", site_profile(gpu={"idle_s": 2}, poll_s=1))
    run.wait_until(runs.happened(run.out, "job_done", "represent", 2))
    frozen = [pid for worker in run.workers("cpu") for pid in stopped(worker.pids)]
    run.wait_until(lambda: not any(job.partition == "gpu" for job in run.jobs()))
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    cluster_runs.assert_as_undisturbed(run, undisturbed, RAW, NETWORK)
    done = cluster_runs.finished_tasks(run.out)
    # Of that stage, only the slide's range of intensities is found without a network.
    network = {task for task, _ in done if task.startswith("represent") and not task.endswith("ranges")}
    assert {(task in network, worker.split("-")[0]) for task, worker in done} == {(True, "gpu"), (False, "cpu")}
    assert not run.retried()
