"""What tests of runs on the SLURM share: starting one, finding its workers, and what must hold when it has ended."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import runs

from comir_batch.execution.start import job_name
from comir_batch.pipeline.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from slurm_cluster import Job, SlurmCluster

RAW, NETWORK = "p1", "n1"
_ROWS = {
    RAW: f"{RAW},fixed.ome.tif,moving.ome.tif,stain,negative,none",
    NETWORK: f"{NETWORK},fixed.ome.tif,moving.ome.tif,haematoxylin,dab,haematoxylin-dab",
}


class Worker(NamedTuple):
    """A worker: its name, the id of its job, its node, and its processes, the nanny's first."""

    name: str
    job: str
    node: str
    pids: list[int]

    @property
    def nanny(self) -> int:
        """The process that watches over the worker; the job's first."""
        return self.pids[0]

    @property
    def process(self) -> int:
        """The process that runs the tasks, under the nanny."""
        (found,) = [pid for pid in self.pids[1:] if "spawn_main" in _words(pid)]
        return found

    @property
    def elastix(self) -> bool:
        """Whether it registers: it has started elastix' process."""
        return any("elastix_child" in _words(pid) for pid in self.pids)


class ClusterRun(runs.Started):
    """``comir-batch run --executor slurm`` under way, its driver in a session of its own.

    Parameters
    ----------
    slurm : SlurmCluster
        Whose jobs the workers are.
    words : list of str
        The command; see `command`.
    out : Path
        The run directory; what the driver prints goes to ``<out>-<number>.txt`` beside it.
    """

    def __init__(self, slurm: SlurmCluster, words: list[str], out: Path) -> None:
        self.slurm, self.out = slurm, out
        self.job_name = job_name(out.resolve())
        number = len(list(out.parent.glob(f"{out.name}-*.txt")))
        super().__init__(words, out.with_name(f"{out.name}-{number}.txt"), slurm.env)

    @property
    def text(self) -> str:
        """What the driver has printed, on both streams."""
        return self.log.read_text(encoding="utf-8")

    def wait_until(self, true: Callable[[], bool], seconds: float = 240) -> None:
        """Look ten times a second; fail with the driver's output when it ends before, or when it never comes."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"it ended too early:\n{self.text}"
            assert time.monotonic() < end, f"it never came:\n{self.text}\n{self.slurm.squeue()}"
            time.sleep(0.1)

    def end(self, seconds: float = 500) -> int:
        """Wait for the driver's end and return its exit code."""
        return self.process.wait(seconds)

    def jobs(self) -> list[Job]:
        """Return the run's jobs that are in the queue."""
        return self.slurm.jobs(self.job_name)

    def workers(self, kind: str = "") -> list[Worker]:
        """Return the workers that have processes, of a kind (``cpu``, ``gpu``) or all."""
        found = [_worker(self.slurm, job) for job in self.jobs() if job.state == "RUNNING"]
        return [worker for worker in found if worker.name.startswith(kind) and worker.pids]

    def registering(self) -> Worker | None:
        """Return a worker that has elastix' process; None if there is none at the moment."""
        return next((worker for worker in self.workers("cpu") if worker.elastix), None)

    def wait_for_worker(self, find: Callable[[], Worker | None], seconds: float = 240) -> Worker:
        """Wait until a function such as `registering` finds a worker, and return it."""
        found: list[Worker] = []

        def look() -> bool:
            found.extend(worker for worker in [find()] if worker is not None)
            return bool(found)

        self.wait_until(look, seconds)
        return found[0]

    def retried(self) -> list[dict]:
        """Return the events that told of a task that is tried again."""
        return [event for event in events(self.out) if event["kind"] == "task_retried"]

    def finish_off(self) -> None:
        """Kill the driver if it still runs; for the end of a test that failed."""
        if self.process.poll() is None:
            self.kill()


def command(manifest: Path, out: Path, profile: Path, *options: str, **sections: object) -> list[str]:
    """Return the command line of a run on the SLURM with the quick settings; `sections` as in `runs.settings`."""
    sections["execution"] = {"workers": 0, **sections.get("execution", {})}  # the profile says
    return runs.command(manifest, out, "--executor", "slurm", "--profile", str(profile), *options, **sections)


def make_inputs(folder: Path) -> None:
    """Write slides and the manifests ``raw.csv`` (pair `RAW`), ``network.csv`` (pair `NETWORK`) and ``both.csv``."""
    runs.make_slides(folder)
    for name, pairs in {"raw": [RAW], "network": [NETWORK], "both": [RAW, NETWORK]}.items():
        rows = [f"{runs.HEADER},model", *(_ROWS[pair] for pair in pairs)]
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def events(out: Path) -> list[dict]:
    """Return the events of a run so far."""
    return runs.lines(Layout(out).log)


def workers_of_tasks(out: Path) -> list[tuple[str, str]]:
    """Return stage and worker of every finished task in the records."""
    return [(task.split("-")[0], worker) for task, worker in finished_tasks(out)]


def finished_tasks(out: Path) -> list[tuple[str, str]]:
    """Return key and worker of every finished task in the records."""
    return [(line["task"], line["worker"]) for line in runs.lines(Layout(out).records) if line["kind"] == "task"]


def assert_as_undisturbed(run: ClusterRun, undisturbed: Path, *pairs: str) -> None:
    """Check that a run ended well, with the result of the undisturbed one, and left nothing behind."""
    assert run.end() == 0, run.text
    for pair in pairs:
        runs.assert_same_result(run.out, undisturbed, pair)
    assert not runs.leftovers(run.out)
    assert_nothing_left(run)


def assert_ended_with(run: ClusterRun, code: int, *words: str) -> None:
    """Check that a run ended with a code, said these words and no traceback, and left nothing behind."""
    assert run.end() == code, run.text
    for word in words:
        assert word in run.text
    assert "Traceback" not in run.text
    assert_nothing_left(run)


def assert_nothing_left(run: ClusterRun) -> None:
    """Check that a run whose driver has ended has no job in the queue and no process anywhere."""
    assert run.process.poll() is not None
    # A job that ends by itself takes SLURM a moment to be done with.
    run.slurm.wait_for(lambda: all(job.state == "COMPLETING" for job in run.jobs()), 15)
    run.slurm.wait_for(lambda: not processes(run), 15)


def processes(run: ClusterRun) -> list[psutil.Process]:
    """Return the processes of a run that are alive: of its driver's session, and of its jobs."""
    return [process for process in psutil.process_iter() if _belongs(process, run)]


def _belongs(process: psutil.Process, run: ClusterRun) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if os.getsid(process.pid) == run.process.pid:
            return True
        environment = process.environ()
    except (psutil.Error, ProcessLookupError):
        return False
    mine = environment.get("SLURM_CONF") == run.slurm.env["SLURM_CONF"]
    return mine and environment.get("SLURM_JOB_NAME") == run.job_name


def _worker(slurm: SlurmCluster, job: Job) -> Worker:
    log = re.search(r"StdOut=(.*)", slurm.scontrol("show", "job", job.id))
    assert log
    return Worker(Path(log.group(1)).stem, job.id, job.node, slurm.processes(job.id))


def _words(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
