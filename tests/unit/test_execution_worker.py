"""A worker, a scheduler and their certificate as processes of their own."""

from __future__ import annotations

import gc
import json
import os
import stat
import subprocess
import sys
import time

import pytest
from distributed import Client, LocalCluster

import comir_batch
from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import ConfigError, NoWorkersError
from comir_batch.execution.attach import attached_executor
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.mapping import map_tasks
from comir_batch.execution.security import make_certificate, read_certificate, remove_certificate
from comir_batch.execution.stop import StopRequest
from comir_batch.execution.worker import REFUSED


def start(module: str, *arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"comir_batch.execution.{module}", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **options)


def refused(*arguments: object) -> str:
    process = start("worker", "tls://127.0.0.1:1", *arguments)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    line = said.strip().splitlines()[-1]
    assert line.startswith(REFUSED)
    return line


def test_a_worker_of_another_version_refuses_to_start():
    line = refused("--comir-batch-version", "99.1")
    assert "99.1" in line
    assert comir_batch.__version__ in line


def test_a_worker_refuses_a_node_that_has_not_the_memory():
    assert "999999GiB were asked for" in refused("--memory-limit", "999999GiB")


def test_a_worker_without_the_certificate_of_the_run_refuses_to_start(tmp_path):
    assert str(tmp_path / "tls") in refused("--tls", tmp_path / "tls")


def test_workers_of_plain_dask_are_told_from_those_that_are_to_come(tmp_path):
    file = tmp_path / "scheduler.json"
    with LocalCluster(n_workers=1, processes=False, protocol="tcp://", dashboard_address=":0") as cluster:
        cluster.scheduler.scheduler_file = str(file)
        file.write_text(json.dumps(cluster.scheduler.identity()))
        config = ExecutionConfig(executor="attach", scheduler_file=str(file), dashboard="")
        files = ClusterFiles(tmp_path, tmp_path / "cluster", tmp_path)
        executor = attached_executor(config, stop=StopRequest(), files=files, say=print, start_timeout_s=1)
        try:
            with pytest.raises(NoWorkersError, match=r"of 1 connected worker none .*comir_batch\.execution\.worker"):
                list(map_tasks(executor, abs, [1]))
        finally:
            executor.close()


def test_a_certificate_is_for_its_owner_alone_and_goes(tmp_path):
    folder = tmp_path / "tls"
    make_certificate(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    remove_certificate(folder)
    with pytest.raises(NoWorkersError, match="no certificate"):
        read_certificate(folder)


def test_every_certificate_is_another(tmp_path):
    texts = []
    for _ in range(2):
        make_certificate(tmp_path)
        texts.append((tmp_path / "certificate.pem").read_text())
    assert texts[0] != texts[1]


def test_attaching_needs_a_file(tmp_path):
    files = ClusterFiles(tmp_path, tmp_path / "cluster", tmp_path / "logs")
    with pytest.raises(ConfigError, match="--scheduler-file"):
        attached_executor(ExecutionConfig(executor="attach"), stop=StopRequest(), files=files, say=print)


def test_scheduler_and_worker_meet_by_a_file_and_end_together(tmp_path):
    file = tmp_path / "scheduler.json"
    scheduler = start("scheduler", "--scheduler-file", file, "--host", "127.0.0.1", "--dashboard", "")
    worker = None
    try:
        while not file.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises((OSError, TypeError)):  # TypeError: Dask's own, for an address that asks for certificates
            Client(address, timeout=3)
        gc.collect()  # that client closes when it is collected, and waits for ever if another one starts just then
        tls = ("--tls", tmp_path / "tls")
        worker = start(
            "worker", "--scheduler-file", file, *tls, "--interface", "lo", "--memory-limit", "1GiB", "--threads", 3
        )
        config = ExecutionConfig(executor="attach", scheduler_file=str(file), queue_timeout_s=60)
        executor = attached_executor(
            config, stop=StopRequest(), files=ClusterFiles(tmp_path, tmp_path, tmp_path), say=print
        )
        assert [outcome.value for outcome in map_tasks(executor, str.upper, ["a", "b"])] == ["A", "B"]
        assert map_tasks(executor, os.getenv, ["OMP_NUM_THREADS"])[0].value == "3"
        executor.close()
        assert worker.poll() is None
        scheduler.terminate()
        assert scheduler.wait(timeout=30) == 0
        assert worker.wait(timeout=30) == 0
        assert not file.exists()
        assert list((tmp_path / "tls").iterdir()) == []
    finally:
        for process in (scheduler, worker):
            if process is not None and process.poll() is None:
                process.kill()
            if process is not None:
                process.communicate()


def test_a_worker_whose_time_is_over_ends_its_task_and_gets_no_other(tmp_path):
    file = tmp_path / "scheduler.json"
    processes = [start("scheduler", "--scheduler-file", file, "--host", "127.0.0.1", "--dashboard", "")]
    try:
        join = ("--scheduler-file", file, "--tls", tmp_path / "tls", "--interface", "lo", "--memory-limit", "1GiB")
        while not file.exists():
            time.sleep(0.1)
        processes.append(start("worker", *join, "--name", "first", "--lifetime", 8))
        config = ExecutionConfig(executor="attach", scheduler_file=str(file), queue_timeout_s=60)
        executor = attached_executor(
            config, stop=StopRequest(), files=ClusterFiles(tmp_path, tmp_path, tmp_path), say=print
        )
        assert [o.worker for o in map_tasks(executor, time.sleep, [0.1])] == ["first"]
        processes.append(start("worker", *join, "--name", "second"))
        outcomes = map_tasks(executor, time.sleep, [12.0, 12.0, 0.1])
        assert all(outcome.ok for outcome in outcomes)  # the first one's was not broken off
        assert {outcome.worker for outcome in outcomes[:2]} == {"first", "second"}
        assert outcomes[2].worker == "second"
        map_tasks(executor, time.sleep, [1.0])
        assert processes[1].wait(timeout=30) == 0
        executor.close()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
