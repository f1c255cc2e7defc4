"""Workers as jobs of SLURM: submitted as they are needed, given back when idle, replaced when lost."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from comir_batch.core.errors import NoWorkersError
from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.commands import SlurmError
from comir_batch.execution.slurm.queue_watch import QueueWatch, Snapshot
from comir_batch.execution.slurm.roster import Member, Roster, Size
from comir_batch.execution.slurm.script import Order, job_script, slots
from comir_batch.execution.worker import REFUSED
from comir_batch.execution.workforce import LOST, TOLD, Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from comir_batch.core.task import Resource
    from comir_batch.execution.slurm.script import Site
    from comir_batch.execution.workforce import Need, Seat

_EARLY_DEATHS = 3
_TAIL_LINES = 15
_SAY_EVERY_S = 300.0
_AFTER_REFUSAL_S = 60.0
# Of a job that ended or is about to: what SLURM, not the task, did.
_BLAMELESS = {
    "PREEMPTED": "the worker's job was preempted",
    "TIMEOUT": "the worker's job reached its walltime",
    "NODE_FAIL": "the worker's node failed",
    "CANCELLED": "the worker's job was cancelled",
    "BOOT_FAIL": "the worker's node failed to start",
    "DEADLINE": "the worker's job reached its deadline",
}


# Of a job that waits: what no waiting mends.
_HOPELESS = frozenset(
    {"PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "InvalidAccount", "InvalidQOS", "AccountNotAllowed"}
)


class SlurmWorkforce:
    """Keeps as many workers as there is work for, up to the profile's number of jobs.

    Parameters
    ----------
    site : Site
        What the jobs have in common.
    scheduler : str
        Address of the Dask scheduler.
    job_name : str
        By which the queue is asked for the run's jobs.
    retire : callable
        Ends the worker of an address once it has nothing to do.
    say : callable
        Takes sentences for the user.
    queue_timeout_s : float
        How long jobs may wait in the queue while nothing else runs; 0 for as long as it takes.
    """

    def __init__(
        self,
        site: Site,
        scheduler: str,
        job_name: str,
        *,
        retire: Callable[[str], None],
        say: Callable[[str], None],
        queue_timeout_s: float,
    ) -> None:
        self._site, self._scheduler, self._job_name = site, scheduler, job_name
        self._retire, self._say, self._queue_timeout_s = retire, say, queue_timeout_s
        kinds = site.profile.kinds()
        self._roster = Roster(kinds, {kind: slots(jobs) for kind, jobs in kinds.items()})
        self._watch = QueueWatch(job_name, site.profile.poll_s)
        self._token, self._numbers = secrets.token_hex(2), count(1)
        self._ids: dict[str, str] = {}
        self._deaths: dict[Resource, int] = dict.fromkeys(kinds, 0)
        self._hungry_since: float | None = None
        self._said = self._refused_at = float("-inf")

    def preflight(self) -> None:
        """Let SLURM check a job of each kind, without submitting one, and cancel what a killed driver has left.

        Raises
        ------
        NoWorkersError
            If SLURM refuses one, with its reason.
        """
        left = self._left_over()
        if left:
            self._say(f"{len(left)} jobs of an earlier driver of this run are cancelled")
            commands.cancel(left)
        for kind in self._site.profile.kinds():
            script = self._written(Size(kind, self._roster.sizes(kind)[0]), f"{kind}-check")
            try:
                commands.test_submission(script)
            except SlurmError as error:
                raise self._refusal(kind, error) from error

    def largest_mb(self, kind: Resource, seats: Collection[Seat]) -> int:  # noqa: ARG002  larger ones can be had
        """Return the memory of a task in the largest job that the profile allows."""
        jobs = self._site.profile.kinds().get(kind)
        if jobs is None:
            return 0
        return jobs.limit_mb // slots(jobs)

    def tend(self, needs: Sequence[Need], seats: Collection[Seat], busy: Collection[str]) -> None:
        """Submit, replace and give back jobs, and give up where that makes no sense any more.

        Raises
        ------
        NoWorkersError
            If SLURM refuses jobs and none of the kind is left, if three workers of a kind died one after the other
            before they had connected, or if jobs have been waiting for too long.
        """
        now = time.monotonic()
        self._require_kinds(needs)
        for member in self._roster.note({seat.name for seat in seats}, busy, now):
            self._deaths[member.kind] = 0
        snapshot = self._watch.latest
        for member in self._roster.take_ended(snapshot.jobs, snapshot.read):
            self._count_early_death(member)
        # A worker that its nanny cannot bring back (it is killed at each start, say) holds a job for nothing.
        commands.cancel(m.job_id for m in self._roster.take_absent(now, self._site.profile.start_timeout_s))
        self._submit(self._roster.missing(needs), now)
        addresses = {seat.name: seat.address for seat in seats}
        for member in self._roster.idle(needs, now):
            self._give_back(member, addresses.get(member.name, ""))
        sizes = [Size(seat.kind, seat.memory_mb * seat.slots) for seat in seats]
        self._mind_waiting(self._roster.hungry(needs, sizes), snapshot, now, working=bool(busy))

    def explain(self, worker: str) -> Loss:
        """Return why a worker was lost, by what SLURM says of its job and by what the worker left behind."""
        state = commands.state(self._ids.get(worker, ""))
        if state == "OUT_OF_MEMORY":
            return Loss("out of memory: SLURM ended the worker's job", out_of_memory=True)
        if state in _BLAMELESS:
            return Loss(_BLAMELESS[state], blameless=True)
        if self._site.files.farewell(worker).exists():
            return Loss(TOLD, blameless=True)
        return Loss(f"{LOST} (see {self._site.files.log(worker)})")

    def cancel_waiting(self) -> None:
        """Cancel the jobs whose workers have not connected, and submit no more."""
        self._watch.close()
        commands.cancel(member.job_id for member in self._roster.members.values() if not member.seen)

    def close(self, grace_s: float) -> None:
        """Cancel all jobs of the run that do not end by themselves in time; their scheduler is gone.

        Parameters
        ----------
        grace_s : float
            How long they may take: jobs that ended by themselves look better in a site's accounting.
        """
        end = time.monotonic() + grace_s
        with suppress(SlurmError):
            while (left := self._left_over()) and time.monotonic() < end:
                time.sleep(1.0)
            commands.cancel(left)
            return
        commands.cancel(member.job_id for member in self._roster.members.values())

    def _left_over(self) -> list[str]:
        return list(commands.queue([self._job_name]))

    def _require_kinds(self, needs: Sequence[Need]) -> None:
        missing = {need.kind for need in needs} - set(self._site.profile.kinds())
        if missing:
            raise NoWorkersError(f"the profile has no [{missing.pop()}] jobs, and a task needs one")

    def _submit(self, sizes: Sequence[Size], now: float) -> None:
        if now - self._refused_at < _AFTER_REFUSAL_S:
            return
        for size in sizes:
            name = f"{size.kind}-{next(self._numbers)}-{self._token}"
            try:
                job_id = commands.submit(self._written(size, name))
            except SlurmError as error:
                if not any(member.kind is size.kind for member in self._roster.members.values()):
                    raise self._refusal(size.kind, error) from error
                self._refused_at = now
                self._say(f"SLURM refused one more {size.kind} job, which is tried again later: {error}")
                return
            self._ids[name] = job_id
            self._roster.add(Member(name, size.kind, size.memory_mb, job_id, time.monotonic()))

    def _written(self, size: Size, name: str) -> Path:
        order = Order(name, self._job_name, size.kind, size.memory_mb, self._scheduler)
        path = self._site.files.script(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job_script(order, self._site), encoding="utf-8")
        return path

    def _refusal(self, kind: Resource, error: SlurmError) -> NoWorkersError:
        script = self._site.files.script(f"{kind}-check")
        return NoWorkersError(
            f"SLURM refused the {kind} workers' job: {error}. Check [{kind}] of the profile; the job was {script}"
        )

    def _count_early_death(self, member: Member) -> None:
        if member.seen:
            return
        self._deaths[member.kind] += 1
        tail = self._tail(member.name)
        refusal = next((line for line in tail if line.startswith(REFUSED)), "")
        if refusal:
            raise NoWorkersError(f"a {member.kind} worker would not start: {refusal.removeprefix(REFUSED).strip()}")
        if self._deaths[member.kind] >= _EARLY_DEATHS:
            log = self._site.files.log(member.name)
            said = "\n".join(f"    {line}" for line in tail) or "    (nothing)"
            raise NoWorkersError(
                f"{_EARLY_DEATHS} {member.kind} workers in a row ended before they connected; {log} ends with\n{said}"
            )

    def _tail(self, worker: str) -> list[str]:
        try:
            text = self._site.files.log(worker).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-_TAIL_LINES:]

    def _give_back(self, member: Member, address: str) -> None:
        del self._roster.members[member.name]
        if address:
            self._retire(address)
        commands.cancel([member.job_id])

    def _mind_waiting(self, hungry: Sequence[Size], snapshot: Snapshot, now: float, *, working: bool) -> None:
        if not hungry:
            self._hungry_since = None
            return
        self._hungry_since = self._hungry_since or now
        waited = now - self._hungry_since
        waiting = [job for job in snapshot.jobs.values() if job.state == commands.PENDING]
        reasons = ", ".join(sorted({job.reason for job in waiting})) or "none given yet"
        jobs = "1 job is" if len(waiting) == 1 else f"{len(waiting)} jobs are"
        hopeless = next((job for job in waiting if job.reason in _HOPELESS), None)
        if hopeless is not None:
            raise NoWorkersError(
                f"job {hopeless.job_id} would wait for ever, by SLURM's reason: {hopeless.reason}. Check partition, "
                "walltime and directives of the profile"
            )
        if self._queue_timeout_s and waited > self._queue_timeout_s and not working:
            kinds = " and ".join(sorted({size.kind for size in hungry}))
            raise NoWorkersError(
                f"no {kinds} worker came within {self._queue_timeout_s:g} s; {jobs} waiting in SLURM's queue, by its "
                f"reason: {reasons}"
            )
        if waiting and now - self._said > _SAY_EVERY_S and waited > 2 * self._site.profile.poll_s:
            self._said = now
            self._say(f"{jobs} waiting in SLURM's queue: {reasons}")
