"""Whether a site is as its profile says: asked of SLURM, of the container, and of a small job on a node."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comir_batch
from comir_batch.core.check import failed, ok, warning
from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import walltime_s
from comir_batch.core.task import Resource
from comir_batch.execution.address import own_address
from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.batch import Batch, directives
from comir_batch.execution.slurm.commands import SlurmError
from comir_batch.execution.slurm.script import Order, interpreter, job_script, prologue, shebang

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from comir_batch.core.check import Check
    from comir_batch.core.profile import Jobs, Profile
    from comir_batch.execution.slurm.script import Site

_NAME = "cb-doctor"
_NOT_FOUND = 127  # a shell's exit code
_START_S = 120.0
_LITTLE_GB = 5.0
_VERSION = "import comir_batch; print(comir_batch.__version__)"
_DRIVER_PACKAGES = ("dask_jobqueue", "cryptography")


def check_slurm(site: Site) -> Iterator[Check]:
    """Yield what SLURM says: whether it is here, and whether it would take the jobs."""
    try:
        commands.require()
        yield ok("SLURM", commands.version())
    except (ConfigError, SlurmError) as error:
        yield failed("SLURM", str(error))
        return
    if not (site.profile.driver_interface or site.profile.driver_host):
        yield _address()
    missing = [name for name in _DRIVER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield failed("job scripts", f"{' and '.join(missing)} not installed: pip install 'comir-batch[driver]'")
        return
    for kind, jobs in site.profile.kinds().items():
        yield from _partitions(kind, jobs)
        yield from (_test(site, kind, memory_mb) for memory_mb in sorted({jobs.memory_mb, jobs.limit_mb}))


def check_container(site: Site) -> Iterator[Check]:
    """Yield whether the workers' Python starts here, in its container if there is one, and is of our version."""
    profile = site.profile
    absent = [folder for folder in profile.binds if not Path(folder).expanduser().is_dir()]
    for folder in absent:
        yield warning("bind", f"{folder} is no folder here; where it is missing on a node, no container starts")
    if profile.image and not Path(profile.image).exists():
        yield failed("image", f"{profile.image} is not there; build it, or say in the profile where it is")
        return
    # What only nodes have is left out here.
    here = profile.model_copy(update={"scratch": "", "binds": tuple(set(profile.binds) - set(absent))})
    yield _start(replace(site, profile=here))


def _start(site: Site) -> Check:
    profile, command = site.profile, interpreter(site, Resource.CPU)
    what = "image" if profile.image else "python"
    found = _shell(profile, f"{command} -c {shlex.quote(_VERSION)}")
    answer = _last_line(found.stdout)
    if found.returncode == _NOT_FOUND and profile.image:
        return warning(what, f"{profile.apptainer} is not to be had here; whether nodes have it, --submit tells")
    if found.returncode != 0:
        return failed(what, f"comir-batch does not start in it: {_last_line(found.stderr) or 'it says nothing'}")
    if answer != comir_batch.__version__:
        return failed(what, f"it has comir-batch {answer}, and this is {comir_batch.__version__}; give both the same")
    return ok(what, f"{profile.image or command}: comir-batch {answer}")


def check_node(site: Site, kind: Resource, wait_s: float) -> Iterator[Check]:
    """Submit a small job of a kind and yield what it finds on its node.

    Parameters
    ----------
    site : Site
        Its folder must be seen by the nodes.
    kind : Resource
        Of the job.
    wait_s : float
        How long the job may wait and run before it is cancelled.
    """
    what = f"{kind} node"
    try:
        with _listening(site.profile) as (host, port):
            out = site.files.folder / f"{kind}.json"
            script = site.files.folder / f"{kind}.sh"
            script.write_text(_probe_script(site, kind, out, (host, port)), encoding="utf-8")
            reason = _run(script, out, wait_s)
    except (OSError, ValueError) as error:
        yield failed(what, f"the driver cannot listen where the profile says: {error}; check driver_interface and host")
        return
    except SlurmError as error:
        yield failed(what, f"SLURM refused the job: {error}")
        return
    if not out.exists():
        said = _last_line(_read(site.files.log(f"{kind}-probe")))
        yield warning(what, reason) if reason else failed(what, f"the job left nothing; it said: {said or '(nothing)'}")
        return
    yield from _node(kind, site.profile, json.loads(_read(out)), f"{host}:{port}")


def _address() -> Check:
    try:
        return ok("driver", f"workers are told {own_address()}")
    except (ConfigError, OSError) as error:
        return failed("driver", f"{error}")


def _partitions(kind: Resource, jobs: Jobs) -> Iterator[Check]:
    """Yield what `sbatch --test-only` passes over: a job that SLURM takes and never starts."""
    for name in jobs.partition.split(","):
        what = f"{kind} partition"
        try:
            shown = commands.partition(name)
        except SlurmError as error:
            yield failed(what, f"{name}: {error}")
        else:
            yield _partition(what, shown, jobs.walltime)


def _partition(what: str, shown: Mapping[str, str], walltime: str) -> Check:
    name, state, limit = shown["PartitionName"], shown.get("State", "UP"), shown.get("MaxTime", "UNLIMITED")
    if state != "UP":
        return warning(what, f"{name} is {state}: jobs wait until it is up")
    if limit != "UNLIMITED" and walltime_s(limit) < walltime_s(walltime):
        return failed(what, f"{name} allows {limit}, and walltime is {walltime}: such a job would wait for ever")
    return ok(what, f"{name}; walltime {walltime}, at most {limit}")


def _test(site: Site, kind: Resource, memory_mb: int) -> Check:
    what = f"{kind} job of {memory_mb / 1024:g} GiB"
    order = Order(f"{kind}-check", _NAME, kind, memory_mb, "tls://127.0.0.1:1")
    path = site.files.script(order.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job_script(order, site), encoding="utf-8")
    try:
        commands.check_submission(path)
    except SlurmError as error:
        return failed(what, f"SLURM refuses it: {error}")
    return ok(what, "SLURM would take it")


def _probe_script(site: Site, kind: Resource, out: Path, driver: tuple[str, int]) -> str:
    jobs = site.profile.kinds()[kind].model_copy(update={"walltime": "5"})
    log = site.files.log(f"{kind}-probe")
    batch = Batch(_NAME, jobs, site.files.root, log, "", ("--no-requeue",))
    words = shlex.join([str(out), "--connect", driver[0], str(driver[1])])
    command = f"exec {interpreter(site, kind)} -m comir_batch.execution.slurm.probe {words}"
    return "\n".join([shebang(site.profile), directives(batch, site.profile), *prologue(site.profile), command, ""])


def _run(script: Path, out: Path, wait_s: float) -> str:
    """Run a job to its end and return why it has not come to one in time; empty if it has."""
    job_id = commands.submit(script)
    end = time.monotonic() + wait_s
    try:
        while not out.exists():
            job = commands.queue([_NAME]).get(job_id)
            if job is None:
                time.sleep(1.0)  # a network file system may show its file late
                return ""
            if time.monotonic() > end:
                return f"the job is {job.state.lower()} after {wait_s:g} s ({job.reason}); it was cancelled"
            time.sleep(1.0)
    finally:
        commands.cancel([job_id])
    return ""


def _node(kind: Resource, profile: Profile, found: dict[str, Any], driver: str) -> Iterator[Check]:
    what = f"{kind} node"
    mine = comir_batch.__version__
    if found["comir-batch"] != mine:
        yield failed(what, f"{found['node']} has comir-batch {found['comir-batch']}, and this is {mine}")
    else:
        yield ok(what, f"{found['node']}: comir-batch {mine}, Python {found['python']}")
    scratch = found["scratch"]
    if "problem" in scratch:
        yield failed(f"{what}: scratch", f"{scratch['folder']} cannot be written: {scratch['problem']}; see scratch")
    else:
        judged = ok if scratch["free_gb"] >= _LITTLE_GB else warning
        yield judged(f"{what}: scratch", f"{scratch['folder']}, {scratch['free_gb']:.0f} GB free")
    if found["driver"]:
        yield failed(
            f"{what}: way here", f"cannot reach {driver}: {found['driver']}; see driver_interface, driver_port"
        )
    else:
        yield ok(f"{what}: way here", f"reaches {driver}")
    if kind is Resource.GPU and profile.device == "cuda":
        if found["gpus"]:
            yield ok(f"{what}: GPU", ", ".join(found["gpus"]))
        else:
            yield failed(
                f"{what}: GPU", f"torch sees none (CUDA_VISIBLE_DEVICES={found['visible']}); check gres and driver"
            )


@contextmanager
def _listening(profile: Profile) -> Iterator[tuple[str, int]]:
    """Listen where a driver would, and yield the address that workers are told."""
    if profile.driver_interface:
        from distributed.utils import get_ip_interface  # noqa: PLC0415  Dask takes a second to load

        host = str(get_ip_interface(profile.driver_interface))
    else:
        host = profile.driver_host or own_address()
    # The kernel completes connections by itself; nobody needs to accept them.
    with socket.create_server((host, profile.driver_port)) as listener:
        yield host, int(listener.getsockname()[1])


def _shell(profile: Profile, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command here as a job would: after the profile's modules and prologue."""
    words = shlex.split(shebang(profile).removeprefix("#!"))
    text = "\n".join([*prologue(profile), command])
    try:
        return subprocess.run([*words, "-c", text], check=False, capture_output=True, text=True, timeout=_START_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 1, "", f"nothing happened within {_START_S:g} s")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
