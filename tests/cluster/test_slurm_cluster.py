"""The SLURM that the other tests here rest on does what a real site does."""

from __future__ import annotations

import subprocess

import psutil
import pytest
from slurm_cluster import NODES, PORTS

from comir_batch.core.profile import load_profile


def test_all_nodes_are_idle_and_the_queue_is_empty(slurm):
    assert slurm.nodes() == dict.fromkeys(NODES, "idle")
    assert slurm.jobs() == []


def test_nobody_outside_this_machine_can_talk_to_it(slurm):
    mine = [process for daemon in slurm.daemons() for process in (daemon, *daemon.children(recursive=True))]
    listening = [
        connection.laddr
        for process in mine
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert len({address.port for address in listening} & set(PORTS)) == 5


def test_a_job_runs_in_the_default_partition_to_its_end(slurm):
    job = slurm.sbatch("--job-name=hello", "--wrap", "echo I am on $SLURMD_NODENAME")
    slurm.wait_for(lambda: not slurm.jobs("hello"))
    ended = slurm.job(job)
    assert (ended.name, ended.state, ended.partition) == ("hello", "COMPLETED", "cpu")
    assert slurm.output(job) == f"I am on {ended.node}\n"


def test_a_job_with_a_gpu_is_told_which(slurm):
    job = slurm.sbatch("--partition=gpu", "--gres=gpu:1", "--wrap", "echo GPU $CUDA_VISIBLE_DEVICES")
    slurm.wait_for(lambda: slurm.job(job).state == "COMPLETED")
    assert slurm.output(job) == "GPU 0\n"


def test_the_processes_of_a_job_are_known_and_cancelled_with_it(slurm):
    job = slurm.sbatch("--wrap", "sleep 300 & sleep 301")
    slurm.wait_for(lambda: len(slurm.processes(job)) == 3)
    shell, *sleeps = slurm.processes(job)
    assert {psutil.Process(pid).ppid() for pid in sleeps} == {shell}
    slurm.scancel(job)
    slurm.wait_for(lambda: not slurm.processes(job))
    slurm.wait_for(lambda: slurm.job(job).state == "CANCELLED")


def test_a_closed_partition_keeps_its_jobs_and_says_why(slurm):
    job = slurm.sbatch("--partition=closed", "--wrap", "true")
    slurm.wait_for(lambda: slurm.job(job).reason == "PartitionDown")
    assert slurm.job(job).state == "PENDING"
    assert "(PartitionDown)" in slurm.squeue()


def test_an_unknown_partition_is_refused_in_words(slurm):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        slurm.sbatch("--partition=nowhere", "--wrap", "true")
    assert "invalid partition specified: nowhere" in refused.value.stderr


def test_an_urgent_job_takes_the_gpu_of_another_which_is_queued_again(slurm):
    on_gpu1 = ("--gres=gpu:1", "--nodelist=gpu1", "--open-mode=append")
    job = slurm.sbatch("--partition=gpu", *on_gpu1, "--wrap", "echo from the start; exec sleep 300")
    slurm.wait_for(lambda: slurm.output(job).count("from the start") == 1)
    urgent = slurm.sbatch("--partition=urgent", *on_gpu1, "--wrap", "sleep 1")
    slurm.wait_for(lambda: slurm.job(urgent).state == "COMPLETED")
    assert slurm.job(job).state == "PENDING"
    assert "DUE TO PREEMPTION" in slurm.output(job)
    slurm.wait_for(lambda: slurm.output(job).count("from the start") == 2)


@pytest.mark.parametrize(("option", "state"), [("--requeue", "PENDING"), ("--no-requeue", "NODE_FAIL")])
def test_a_node_that_goes_down_takes_its_job_with_it(slurm, option, state):
    job = slurm.sbatch(option, "--nodelist=cpu1", "--wrap", "exec sleep 300")
    slurm.wait_for(lambda: slurm.processes(job) and slurm.job(job).state == "RUNNING")
    before = slurm.processes(job)
    slurm.set_node("cpu1", "down")
    slurm.wait_for(lambda: not any(psutil.pid_exists(pid) for pid in before))
    slurm.wait_for(lambda: slurm.job(job).state == state)
    assert slurm.nodes()["cpu1"] == "down"


def test_a_profile_of_it_can_be_changed_setting_by_setting(site_profile):
    profile = load_profile(site_profile(cpu={"jobs": 1}, gpu={"slots": 1}, poll_s=1))
    assert (profile.cpu.jobs, profile.cpu.partition, profile.poll_s) == (1, "cpu", 1)
    assert (profile.gpu.slots, profile.gpu.gres, profile.device) == (1, "gpu:1", "cpu")
    assert load_profile(site_profile(gpu=None)).gpu is None
