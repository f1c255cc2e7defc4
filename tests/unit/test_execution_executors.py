"""What every executor must do, over each of them; then what only a cluster can show."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from dask.utils import key_split

from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import NoWorkersError, StoppedError, TaskError
from comir_batch.core.task import Outcome, Resource, Task
from comir_batch.execution.dask_executor import DaskExecutor
from comir_batch.execution.local import local_executor
from comir_batch.execution.mapping import TaskList, map_tasks
from comir_batch.execution.memory import allowed_mb
from comir_batch.execution.serial import SerialExecutor
from comir_batch.execution.stop import StopRequest
from comir_batch.execution.workforce import FixedWorkforce

if TYPE_CHECKING:
    from pathlib import Path

NASTY = ["plain", "with space", "quote'", 'double"quote', "new\nline", "Größe µm 切片", "$(touch x)", "-rf", "tab\tend"]


ASK = """
import sys
from distributed import Client
from distributed.security import Security
for address, security in ((sys.argv[1], Security.temporary()), (sys.argv[1].replace("tls", "tcp"), Security())):
    try:
        client = Client(address, security=security, set_as_default=False, timeout=2)
    except OSError:
        continue
    print("it ran", client.submit(sum, [1]).result(timeout=5))
print("done")
"""


def square(number: int) -> int:
    return number * number


def reciprocal(number: int) -> float:
    if number == 13:
        raise TaskError("thirteen brings\nbad luck; use fourteen")
    return 1 / number


def out_of_memory(_payload: None) -> None:
    raise MemoryError("cannot allocate 3 TiB")


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def allocate(megabytes: int) -> int:
    block = bytearray(os.urandom(2**20) * megabytes)
    time.sleep(0.5)
    return len(block) // 2**20


def allocate_in_child(megabytes: int) -> None:
    code = f"import time; b = bytearray({megabytes} * 2**20); b[::4096] = b'x' * len(b[::4096]); time.sleep(1)"
    subprocess.run([sys.executable, "-c", code], check=True)


def burn_in_child(seconds: float) -> None:
    code = f"import time\nwhile time.process_time() < {seconds}: pass"
    subprocess.run([sys.executable, "-c", code], check=True)


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def resources_of_worker(_payload: None) -> dict[str, float]:
    from distributed import get_worker

    return dict(get_worker().state.total_resources)


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Fixed:
    """Makes executors of one kind; those over Dask share one cluster."""

    def __init__(self, cluster: DaskExecutor | None, logs: Path) -> None:
        self.cluster = cluster
        self.logs = logs

    def __call__(self, stop: StopRequest | None = None, **settings: float) -> SerialExecutor | DaskExecutor:
        return (
            SerialExecutor(stop)
            if self.cluster is None
            else DaskExecutor(self.client, stop=stop, notes=self.logs, **settings)
        )

    @property
    def client(self):
        return self.cluster._client


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    executor = local_executor(ExecutionConfig(workers=2, memory_gb=1.0), logs=logs)
    yield Fixed(executor, logs)
    executor.close()


@pytest.fixture(params=["serial", "dask"])
def make(request, tmp_path):
    return Fixed(None, tmp_path) if request.param == "serial" else request.getfixturevalue("dask")


def own_key(_payload: None) -> str:
    from distributed import get_worker

    return get_worker().get_current_task()


class Chain:
    """Reveals each task only after the outcome of the one before; notes the thread that it is used from."""

    def __init__(self, length: int) -> None:
        self.values = [2]
        self.length = length
        self.waiting = True
        self.threads = set()

    def next_task(self, resource: Resource) -> Task | None:
        self.threads.add(threading.current_thread())
        if resource is not Resource.CPU or not self.waiting or self.finished:
            return None
        self.waiting = False
        return Task(f"chain-{len(self.values):08x}", square, self.values[-1])

    def ready(self, resource: Resource) -> int:
        return int(resource is Resource.CPU and self.waiting)

    def handle(self, outcome: Outcome) -> None:
        self.threads.add(threading.current_thread())
        self.values.append(outcome.value)
        self.waiting = True

    @property
    def finished(self) -> bool:
        return len(self.values) > self.length


def test_results_keep_the_order_of_the_payloads(make):
    outcomes = map_tasks(make(), square, list(range(30)))
    assert [outcome.value for outcome in outcomes] == [n * n for n in range(30)]
    assert all(outcome.ok and outcome.worker and outcome.seconds >= 0 for outcome in outcomes)


def test_the_same_keys_can_be_used_again(make):
    executor = make()
    first, again = (map_tasks(executor, square, payloads) for payloads in ([1, 2, 3], [4, 5, 6]))
    assert [o.value for o in first + again] == [1, 4, 9, 16, 25, 36]


def test_nothing_to_do_is_done_at_once(make):
    assert map_tasks(make(), square, []) == []


def test_an_error_is_one_line_and_the_others_go_on(make):
    outcomes = map_tasks(make(), reciprocal, [2, 13, 4])
    assert [o.value for o in outcomes] == [0.5, None, 0.25]
    assert outcomes[1].error == "thirteen brings bad luck; use fourteen"
    assert not outcomes[1].lost


def test_an_unexpected_error_keeps_its_traceback_for_the_log(make):
    outcome = map_tasks(make(), reciprocal, [0])[0]
    assert outcome.error == "internal error: ZeroDivisionError: division by zero"
    assert "in reciprocal" in outcome.detail
    assert "Traceback" in outcome.detail


def test_running_out_of_memory_in_python_fails_the_task_alone(make):
    outcome = map_tasks(make(), out_of_memory, [None])[0]
    assert outcome.error == "out of memory: cannot allocate 3 TiB"
    assert outcome.lost
    assert outcome.out_of_memory


def test_tasks_that_appear_after_outcomes_run(make):
    chain = Chain(5)
    make().run(chain)
    assert chain.values == [2, 4, 16, 256, 65536, 65536**2]
    assert chain.threads == {threading.current_thread()}


def test_a_source_that_hangs_is_an_error_and_not_a_hang(make):
    chain = Chain(5)
    chain.waiting = False
    with pytest.raises(RuntimeError, match="offers none"):
        make().run(chain)


def test_peak_memory_counts_the_process_and_its_children(make):
    executor = make()
    before = map_tasks(executor, nap, [0.0])[0].peak_mb
    assert map_tasks(executor, allocate, [200])[0].peak_mb > before + 150
    assert map_tasks(executor, allocate_in_child, [200])[0].peak_mb > before + 150


def test_cpu_time_counts_children_and_no_waiting(make):
    executor = make()
    (burnt,), (napped,) = map_tasks(executor, burn_in_child, [0.6]), map_tasks(executor, nap, [0.6])
    assert burnt.cpu_seconds > 0.5
    assert napped.cpu_seconds < 0.4
    assert napped.seconds >= 0.6
    assert 0 < napped.held_mb <= napped.peak_mb


def test_nasty_paths_arrive_as_they_are(make, tmp_path):
    paths = [tmp_path / name for name in NASTY]
    for path in paths:
        path.write_text(path.name, encoding="utf-8")
    assert [o.value for o in map_tasks(make(), read_text, paths)] == NASTY


def test_a_request_to_stop_ends_the_run_soon(make):
    stop = StopRequest()
    source = TaskList(Task(f"nap-{n:08x}", nap, 0.3) for n in range(200))
    threading.Timer(1.0, stop.request, [143]).start()
    with pytest.raises(StoppedError) as stopped:
        make(stop).run(source)
    assert stopped.value.exit_code == 143
    assert 0 < len(source.outcomes) < 50


def test_a_running_task_does_not_hold_up_a_stop(dask):
    stop = StopRequest()
    threading.Timer(0.5, stop.request).start()
    source = TaskList(Task(f"nap-{n:08x}", nap, 5.0) for n in range(3))
    with pytest.raises(StoppedError) as stopped:
        dask(stop).run(source)
    assert stopped.value.exit_code == 75
    assert source.outcomes == {}


def test_closing_the_serial_executor_twice_is_harmless():
    executor = SerialExecutor()
    executor.close()
    executor.close()
    assert executor.dashboard == ""


def test_signals_ask_to_stop_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with stop.on_signals():
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(StoppedError) as stopped:
        stop.check()
    assert stopped.value.exit_code == 130


def test_a_terminal_that_is_closed_asks_to_stop_unless_nohup_has_said_otherwise():
    for ignored in (False, True):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        stop = StopRequest()
        try:
            with stop.on_signals():
                signal.raise_signal(signal.SIGHUP)
        finally:
            signal.signal(signal.SIGHUP, before)
        assert stop.exit_code == (0 if ignored else 129)


def test_a_killed_worker_is_a_lost_task_and_its_neighbours_go_on(dask, tmp_path):
    tasks = [Task("dies-00000000", die_once, tmp_path / "marker")]
    tasks += [Task(f"square-{n:08x}", square, n) for n in range(40)]
    source = TaskList(tasks)
    dask().run(source)
    lost = source.outcomes.pop("dies-00000000")
    assert lost.lost
    assert "worker was lost" in lost.error
    assert all(outcome.ok for outcome in source.outcomes.values())
    assert map_tasks(dask(), die_once, [tmp_path / "marker"])[0].value == "survived"


def test_a_worker_that_takes_too_much_memory_ends_its_task_and_says_so(dask):
    tasks = [Task("greedy-00000000", allocate_in_child, 1500), *(Task(f"square-{n:08x}", square, n) for n in range(9))]
    source = TaskList(tasks)
    dask().run(source)
    greedy = source.outcomes.pop("greedy-00000000")
    assert greedy.lost
    assert greedy.out_of_memory
    assert greedy.limit_mb == 1024
    assert greedy.error.startswith("out of memory: it took")
    assert all(outcome.ok for outcome in source.outcomes.values())


def test_a_smaller_limit_of_the_control_group_counts():
    assert 0 < allowed_mb(7) <= 7
    limit_mb = allowed_mb(0)
    assert limit_mb == 0 or allowed_mb(2**40) == limit_mb


def test_a_kind_without_workers_gives_up_in_the_end(dask):
    with pytest.raises(NoWorkersError, match="no gpu worker"):
        map_tasks(dask(workforce=FixedWorkforce(1.0)), square, [1], resource=Resource.GPU)


def test_a_task_too_large_for_any_worker_is_not_sent(dask):
    source = TaskList([Task("large-00000000", square, 3, memory_mb=5000), Task("small-00000000", square, 3)])
    dask().run(source)
    assert "5000 MB" in source.outcomes["large-00000000"].error
    assert source.outcomes["small-00000000"].value == 9


def test_tasks_that_no_worker_has_the_memory_for_do_not_hold_up_the_others(dask):
    class Patient(FixedWorkforce):
        def largest_mb(self, kind, seats):  # noqa: ARG002  larger workers could come
            return 0

    large = [Task(f"large-{n:08x}", square, n, memory_mb=5000) for n in range(4)]
    source = TaskList([*large, *(Task(f"small-{n:08x}", square, n) for n in range(6))])
    stop = StopRequest()
    threading.Timer(4.0, stop.request).start()
    with pytest.raises(StoppedError):
        dask(stop, workforce=Patient(60.0)).run(source)
    assert sorted(source.outcomes) == [f"small-{n:08x}" for n in range(6)]


def test_an_uncallable_task_is_an_error_of_its_own(dask):
    outcome = map_tasks(dask(), square, ["not a number"])[0]
    assert outcome.error.startswith("internal error: TypeError")


def test_tasks_run_on_workers_of_their_kind():
    executor = local_executor(ExecutionConfig(workers=1, memory_gb=0.5, device="cuda", dashboard=""))
    assert executor.dashboard == ""
    try:
        for kind in Resource:
            outcomes = map_tasks(executor, resources_of_worker, [None] * 5, resource=kind)
            assert [o.value for o in outcomes] == [{kind.value: 1}] * 5
        workers = list(executor._client.run(os.getpid).values())
    finally:
        executor.close()
        executor.close()
    assert len(workers) == 2
    assert not any(map(psutil.pid_exists, workers))


def test_everything_listens_on_the_loopback_only(dask):
    pids = {os.getpid(), *dask.client.run(os.getpid).values()}
    listening = [
        connection.laddr.ip
        for pid in pids
        for connection in psutil.Process(pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3
    assert set(listening) == {"127.0.0.1"}


def test_the_dashboard_answers_and_groups_tasks_by_stage(dask):
    assert dask().dashboard.startswith("http://127.0.0.1:")
    host, port = dask().dashboard.removeprefix("http://").split("/")[0].split(":")
    socket.create_connection((host, int(port)), timeout=5).close()
    source = TaskList([Task("represent-3fa2c1d0-b4", own_key, None)])
    dask().run(source)
    assert key_split(source.outcomes["represent-3fa2c1d0-b4"].value) == "represent"


def test_workers_print_to_their_logs(dask, capfd):
    map_tasks(dask(), say, ["hello from a worker"])
    assert any("hello from a worker" in log.read_text() for log in dask.logs.iterdir())
    assert "hello" not in capfd.readouterr().out


def test_workers_die_with_a_killed_driver(tmp_path):
    code = (
        "from comir_batch.core.config import ExecutionConfig\n"
        "from comir_batch.execution.local import local_executor\n"
        "import os, time\n"
        "if __name__ == '__main__':\n"
        "    executor = local_executor(ExecutionConfig(workers=1, memory_gb=0.5))\n"
        "    print(*executor._client.run(os.getpid).values(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as driver:
        worker = psutil.Process(int(driver.stdout.readline()))
        driver.kill()
    worker.wait(timeout=20)
    assert not worker.is_running()


def test_whoever_has_not_the_certificate_runs_nothing_on_this_machine(dask):
    scheduler = dask.client.scheduler.address
    workers = dask.client.scheduler_info()["workers"]
    assert all(address.startswith("tls://127.0.0.1:") for address in (scheduler, *workers))
    words = [sys.executable, "-c", ASK, scheduler]
    asked = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert asked.stdout == "done\n", asked.stderr
