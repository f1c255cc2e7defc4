"""A real SLURM on this machine, for tests: one controller and four nodes on loopback, in a folder of its own.

Partitions: `cpu` (the default; nodes cpu1 and cpu2), `gpu` (nodes gpu1 and gpu2, a GPU each that is a mere device file,
preemptible), `urgent` (the same nodes, preempts `gpu`) and `closed` (down: its jobs stay pending). Memory and cores are
figures to schedule by and are not enforced; there is no accounting database, as on many sites.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

NODES = ("gpu1", "gpu2", "cpu1", "cpu2")
# Below the ports that systems hand out to outgoing connections, which could take one between our look and its use.
PORTS = range(20001, 32000)
NODE_CPUS = 4
NODE_MEMORY_MB = 8000
NULL_DEVICE = os.makedev(1, 3)

SLURM_CONF = """\
ClusterName=comirbatch
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a job that was requeued waits before it starts again.
AuthInfo=socket={root}/run/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Nodes may claim more than the machine has.
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A node that was set down stays so until it is told to resume.
ReturnToService=0
KillWait=5
MinJobAge=3600
SlurmctldTimeout=30
SlurmdTimeout=30
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory}
NodeName=gpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]},{ports[2]} Gres=gpu:1
NodeName=cpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]},{ports[4]}
PartitionName=cpu    Nodes=cpu[1-2] Default=YES DefaultTime=30 MaxTime=120
PartitionName=gpu    Nodes=gpu[1-2] PriorityTier=1 PreemptMode=REQUEUE GraceTime=5 DefaultTime=30 MaxTime=120
PartitionName=urgent Nodes=gpu[1-2] PriorityTier=10 PreemptMode=OFF DefaultTime=30 MaxTime=120
PartitionName=closed Nodes=cpu[1-2] State=DOWN
"""
# Every slurmd starts the cgroup plugin, and only that of version 1 leaves the system alone where nothing uses it.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
# SLURM sets CUDA_VISIBLE_DEVICES only for GPUs that name a character device.
GRES_CONF = "NodeName=gpu[1-2] Name=gpu File={root}/gpu0\n"


def unavailable() -> str:
    """Return why no SLURM can be started here; empty if one can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)}: `make test-cluster` installs the Debian packages slurm-wlm and munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons run jobs as their users, so only root can start them"


class Job(NamedTuple):
    """A line of the queue."""

    id: str
    name: str
    state: str
    partition: str
    node: str
    reason: str


class SlurmCluster:
    """A SLURM of our own, between `start` and `stop`; also a context manager.

    Attributes
    ----------
    root : Path
        Folder of all that it writes; jobs write to ``log/job-ID.out`` there unless they say otherwise.
    env : dict of str to str
        Environment in which sbatch and its like talk to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {**os.environ, "SLURM_CONF": str(root / "etc" / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the daemons and wait for the nodes; whatever goes wrong, nothing is left running."""
        try:
            self._write_settings()
            self._start_munge()
            self._daemon("slurmctld", "-D", "-c")
            for node in NODES:
                self._daemon("slurmd", "-D", "-N", node)
            self.wait_for(self._all_idle, 30)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs with their processes, then the daemons, the last one started first."""
        for process in (*self._step_daemons(), *self._job_processes()):
            _kill(process)
        while self._daemons:
            daemon = self._daemons.pop()
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def daemons(self) -> list[psutil.Process]:
        """Return the daemons' processes."""
        return [psutil.Process(daemon.pid) for daemon in self._daemons]

    def call(self, *words: object) -> str:
        """Run a command against this SLURM; return what it prints, CalledProcessError with its `stderr` if it fails."""
        line = [str(word) for word in words]
        try:
            done = subprocess.run(line, env=self.env, check=True, capture_output=True, text=True, timeout=60)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise
        return done.stdout.strip()

    def sbatch(self, *words: object) -> str:
        """Submit a job and return its id."""
        return self.call("sbatch", "--parsable", f"--output={self.root}/log/job-%j.out", *words)

    def scancel(self, *words: object) -> str:
        """Cancel jobs."""
        return self.call("scancel", *words)

    def scontrol(self, *words: object) -> str:
        """Call scontrol."""
        return self.call("scontrol", *words)

    def squeue(self, name: str = "") -> str:
        """Return the queue as a user sees it: of the jobs of a name, or of all."""
        return self.call("squeue", *_named(name))

    def jobs(self, name: str = "", *, ended: bool = False) -> list[Job]:
        """Return the jobs in the queue, of a name or all; with `ended`, also those that have left it."""
        states = ("--states=all",) if ended else ()
        lines = self.call("squeue", "--noheader", "--format=%i|%j|%T|%P|%N|%r", *states, *_named(name)).splitlines()
        return [Job(*line.split("|")) for line in lines]

    def job(self, job_id: str) -> Job:
        """Return a job, also one that has ended."""
        (job,) = [job for job in self.jobs(ended=True) if job.id == job_id]
        return job

    def output(self, job_id: str) -> str:
        """Return what a job has printed so far."""
        path = self.root / "log" / f"job-{job_id}.out"
        return path.read_text() if path.exists() else ""

    def nodes(self) -> dict[str, str]:
        """Return the state of each node."""
        lines = self.call("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(sorted(tuple(line.split()) for line in lines))

    def set_node(self, node: str, state: str) -> None:
        """Set a node ``down``, to ``drain``, or to ``resume``."""
        self.scontrol("update", f"nodename={node}", f"state={state}", "reason=test")

    def reset(self) -> None:
        """Cancel what a test has left in the queue and bring back its nodes."""
        if left := [job.id for job in self.jobs()]:
            self.scancel(*left)
            self.wait_for(lambda: not self.jobs(), 30)
        for node in (node for node, state in self.nodes().items() if state != "idle"):
            self.set_node(node, "resume")
        self.wait_for(self._all_idle, 30)

    def processes(self, job_id: str) -> list[int]:
        """Return the ids of a job's processes, the batch shell's first; also of those that outlived it."""
        return [process.pid for process in self._job_processes(SLURM_JOB_ID=job_id)]

    def wait_for(self, true: Callable[[], bool], timeout: float = 60) -> None:
        """Look again and again; fail with the queue and the controller's last words when it never comes."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"it never came:\n{self._picture()}")
            time.sleep(0.2)

    def _all_idle(self) -> bool:
        return self.nodes() == dict.fromkeys(NODES, "idle")

    def _write_settings(self) -> None:
        for name in ("etc", "state", "log", "run", *(f"spool/{node}" for node in NODES)):
            (self.root / name).mkdir(parents=True)
        etc = self.root / "etc"
        facts = {"root": self.root, "host": socket.gethostname().partition(".")[0], "ports": _free_ports()}
        (etc / "slurm.conf").write_text(SLURM_CONF.format(**facts, cpus=NODE_CPUS, memory=NODE_MEMORY_MB))
        (etc / "gres.conf").write_text(GRES_CONF.format(**facts))
        (etc / "cgroup.conf").write_text(CGROUP_CONF)
        os.mknod(self.root / "gpu0", stat.S_IFCHR | 0o666, NULL_DEVICE)

    def _start_munge(self) -> None:
        key, run = self.root / "etc" / "munge.key", self.root / "run"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o600)
        # --force turns its dislike of folders that others may write in, such as those under /tmp, into a warning.
        paths = {"key-file": key, "socket": run / "munge.socket", "pid-file": run / "munged.pid"}
        paths |= {"seed-file": run / "munge.seed", "log-file": self.root / "log" / "munged.log"}
        self._daemon("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in paths.items()))
        self.wait_for((run / "munge.socket").exists, 10)

    def _daemon(self, *words: str) -> None:
        # A session of its own: Ctrl-C is for the tests, and `stop` ends the daemons in order.
        with (self.root / "log" / "daemons.log").open("ab") as log:
            self._daemons.append(subprocess.Popen(words, env=self.env, stdout=log, stderr=log, start_new_session=True))

    def _job_processes(self, **variables: str) -> list[psutil.Process]:
        """Return the processes of this SLURM's jobs, with what they started; oldest first."""
        wanted = {"SLURM_CONF": self.env["SLURM_CONF"], **variables}.items()
        own = [
            process
            for process in psutil.process_iter(["environ"])
            if "SLURM_JOB_ID" in (process.info["environ"] or {}) and wanted <= process.info["environ"].items()
        ]
        found = {process.pid: process for parent in own for process in (parent, *_descendants(parent))}
        return sorted(found.values(), key=lambda process: process.create_time())

    def _step_daemons(self) -> list[psutil.Process]:
        """Return the processes that watch over the jobs; they would wait for ever for a slurmd that is gone."""
        mine = f"{self.root}{os.sep}"
        return [
            process
            for process in psutil.process_iter(["name", "open_files"])
            if process.info["name"] == "slurmstepd"
            and any(file.path.startswith(mine) for file in process.info["open_files"] or ())
        ]

    def _picture(self) -> str:
        log = self.root / "log" / "slurmctld.log"
        last = log.read_text().splitlines()[-20:] if log.exists() else []
        queue = subprocess.run(["squeue"], env=self.env, capture_output=True, text=True, check=False, timeout=60)  # noqa: S607
        return "\n".join([queue.stdout, queue.stderr, *last])


def _named(name: str) -> tuple[str, ...]:
    return (f"--name={name}",) if name else ()


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children(recursive=True) if _alive(child)]
    except psutil.NoSuchProcess:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _free_ports() -> list[int]:
    """Return a port for the controller and for each node."""
    free: list[int] = []
    while len(free) < 1 + len(NODES):
        port = secrets.choice(PORTS)
        with socket.socket() as probe:
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        if not taken and port not in free:
            free.append(port)
    return free
