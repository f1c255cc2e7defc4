"""A worker as a process of its own: ``python -m comir_batch.execution.worker``, which job scripts call.

It looks first whether it can be of use: the version is the driver's, and there is a CUDA device where one is expected.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import psutil
from dask.utils import parse_bytes
from distributed import Nanny

import comir_batch
from comir_batch.core.errors import NoWorkersError
from comir_batch.core.task import Resource
from comir_batch.execution.security import read_certificate
from comir_batch.execution.settings import DASK_SETTINGS, NETWORK_THREADS, THREAD_COUNTS
from comir_batch.execution.workforce import UNTIL

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSED = "comir-batch worker refused:"
_CANNOT_START = 3
_CUDA_S = 120.0
_LOOK_FOR_CUDA = "import sys, torch; sys.exit(not torch.cuda.is_available())"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until its scheduler has gone, its lifetime is over or a signal asks it to end.

    Returns
    -------
    int
        Exit code: 0 at such an end, 3 if it refused to start; the reason is then its last line on stderr.
    """
    options = _parser().parse_args(arguments)
    reason = refusal(options)
    if reason:
        _say(f"{REFUSED} {reason}")
        return _CANNOT_START
    scratch = tempfile.mkdtemp(prefix="comir-batch-")
    try:
        with dask.config.set(DASK_SETTINGS):
            return asyncio.run(_serve(options, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refusal(options: argparse.Namespace) -> str:
    """Return why this process is no use as the worker that was asked for; empty if it is."""
    mine = {"comir-batch": comir_batch.__version__, "distributed": version("distributed")}
    wanted = {"comir-batch": options.comir_batch_version, "distributed": options.distributed_version}
    for package, driver in wanted.items():
        if driver and driver != mine[package]:
            return f"{package} is {mine[package]} here and {driver} at the driver; give both the same version"
    wanted_bytes, there = parse_bytes(options.memory_limit), psutil.virtual_memory().total
    if wanted_bytes > there:
        return (
            f"{options.memory_limit} were asked for and {os.uname().nodename} has {there / 2**30:.1f} GiB; ask for less"
        )
    if options.device == "cuda" and not _sees_cuda():
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        return (
            f"no CUDA device is visible on {os.uname().nodename} (CUDA_VISIBLE_DEVICES={devices}); check gres and the "
            "container's --nv, or the node's driver is older than the image's CUDA (nvidia-smi tells); or "
            'say device = "cpu" in the profile'
        )
    return ""


def _sees_cuda() -> bool:
    # In another process, lest this one, which only watches over the worker, carries torch with it.
    try:
        return subprocess.run([sys.executable, "-c", _LOOK_FOR_CUDA], check=False, timeout=_CUDA_S).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        return False


async def _serve(options: argparse.Namespace, scratch: str) -> int:
    try:
        security = read_certificate(options.tls) if options.tls else None
    except NoWorkersError as error:
        _say(f"{REFUSED} {error}")
        return _CANNOT_START
    threads = str(options.threads)
    try:
        nanny = await Nanny(
            options.scheduler,
            scheduler_file=str(options.scheduler_file) if options.scheduler_file else None,
            name=options.name,
            nthreads=options.nthreads,
            memory_limit=parse_bytes(options.memory_limit),
            resources=_announced(options),
            local_directory=scratch,
            death_timeout=options.death_timeout,
            security=security,
            interface=options.interface or None,
            # No transform shall depend on how many cores a job has.
            env=dict.fromkeys(THREAD_COUNTS, "1") | dict.fromkeys(NETWORK_THREADS, threads),
            # Workers serve plain HTTP even without a dashboard; nobody but this machine shall reach it.
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        )
    except (OSError, TimeoutError, RuntimeError) as error:
        _say(f"comir-batch worker: cannot reach the scheduler: {error!r}")
        return 1
    await _until_the_end(nanny, options.farewell)
    return 0


def _announced(options: argparse.Namespace) -> dict[str, float]:
    """Return what the executor reads of a worker: its kind and slots, and until when it takes tasks.

    Dask's own lifetime would not wait for running tasks.
    """
    announced = {options.kind.value: float(options.nthreads)}
    return announced | ({UNTIL: time.time() + options.lifetime} if options.lifetime else {})


async def _until_the_end(nanny: Nanny, farewell: Path | None) -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    finished = asyncio.create_task(nanny.finished())
    waiting = asyncio.create_task(asked.wait())
    await asyncio.wait([finished, waiting], return_when=asyncio.FIRST_COMPLETED)
    if asked.is_set():
        if farewell:  # tells the driver that the worker was told to go: its task is not to blame
            await asyncio.to_thread(farewell.touch)
        await nanny.close(timeout=2)
    waiting.cancel()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m comir_batch.execution.worker", description=__doc__)
    parser.add_argument("scheduler", nargs="?", help="address of the scheduler")
    parser.add_argument("--scheduler-file", type=Path, help="file that the scheduler writes its address to, instead")
    parser.add_argument("--name", default=None)
    parser.add_argument(
        "--kind", type=Resource, choices=list(Resource), default=Resource.CPU, help="tasks that it takes"
    )
    parser.add_argument("--nthreads", type=int, default=1, help="tasks that it takes at once")
    parser.add_argument("--threads", type=int, default=1, help="threads that networks may use")
    parser.add_argument("--memory-limit", default="0", help="for example 6GiB; 0 for the machine's")
    parser.add_argument("--death-timeout", type=float, default=300.0, help="seconds to wait for the scheduler")
    parser.add_argument("--lifetime", type=float, default=0.0, help="seconds for which it is given tasks; 0: no end")
    parser.add_argument("--interface", default="", help="network interface to listen on")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: refuse to start without one")
    parser.add_argument("--tls", type=Path, help="folder of the run's certificate")
    parser.add_argument("--farewell", type=Path, help="file to make when it is told to end")
    parser.add_argument("--comir-batch-version", default="", help="refuse to start as another version")
    parser.add_argument("--distributed-version", default="", help="likewise")
    return parser


if __name__ == "__main__":
    sys.exit(main())
