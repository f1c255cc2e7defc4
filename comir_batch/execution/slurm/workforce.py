"""Workers as jobs of SLURM: submitted as they are needed, given back when idle, replaced when lost."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from comir_batch.core.errors import NoWorkersError
from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.commands import SlurmError
from comir_batch.execution.slurm.deaths import BLAMELESS, EarlyDeaths
from comir_batch.execution.slurm.queue_watch import QueueWatch
from comir_batch.execution.slurm.roster import Roster
from comir_batch.execution.slurm.script import slots
from comir_batch.execution.slurm.submission import Submission
from comir_batch.execution.workforce import LOST, TOLD, Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from comir_batch.core.task import Resource
    from comir_batch.execution.slurm.queue_watch import Snapshot
    from comir_batch.execution.slurm.roster import Member, Size
    from comir_batch.execution.slurm.script import Site
    from comir_batch.execution.workforce import Need, Seat

_SAY_EVERY_S = 300.0
_ASK_AGAIN_S = 10.0
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
        Ends the workers of some addresses once they have nothing to do.
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
        retire: Callable[[list[str]], None],
        say: Callable[[str], None],
        queue_timeout_s: float,
    ) -> None:
        self._site, self._job_name = site, job_name
        self._retire, self._say, self._queue_timeout_s = retire, say, queue_timeout_s
        kinds = site.profile.kinds()
        self._roster = Roster(kinds, {kind: slots(jobs) for kind, jobs in kinds.items()})
        self._submission = Submission(site, scheduler, job_name, say)
        self._deaths = EarlyDeaths(site.files.log, say)
        self._watch = QueueWatch(job_name, site.profile.poll_s)
        self._explained: dict[str, tuple[float, Loss]] = {}
        self._unknown: set[str] = set()
        self._hungry_since: float | None = None
        self._said = float("-inf")

    def preflight(self) -> None:
        """Let SLURM check jobs of each kind, without submitting one, and cancel what a killed driver has left.

        Raises
        ------
        NoWorkersError
            If SLURM refuses one, with its reason, or does not answer.
        """
        left = self._left_over()
        if left:
            self._say(f"jobs of an earlier driver of this run are cancelled: {', '.join(left)}")
            commands.cancel(left)
        for kind in self._site.profile.kinds():
            sizes = self._roster.sizes(kind)
            self._submission.check(kind, {sizes[0], sizes[-1]})

    def largest_mb(self, kind: Resource, seats: Collection[Seat]) -> int:  # noqa: ARG002  larger ones can be had
        """Return the memory of a task in the largest job that the profile allows."""
        jobs = self._site.profile.kinds().get(kind)
        return 0 if jobs is None else jobs.limit_mb // slots(jobs)

    def tend(self, needs: Sequence[Need], seats: Collection[Seat], busy: Collection[str]) -> None:
        """Submit, replace and give back jobs, and give up where that makes no sense any more.

        Raises
        ------
        NoWorkersError
            If SLURM refuses jobs for long and none of the kind is left, if workers of a kind that has no others do not
            start, or if jobs have been waiting for too long.
        """
        now, snapshot = time.monotonic(), self._watch.latest
        self._require_kinds(needs)
        self._take_note(seats, busy, snapshot, now)
        missing = self._roster.missing(needs)
        present = {seat.kind for seat in seats}
        for member in self._submission.submit(missing, self._deaths.nodes, present):
            self._roster.add(member)
        self._give_back(self._roster.idle(needs, now), seats)
        self._mind_waiting(self._roster.hungry(needs, seats), snapshot, now, working=bool(busy))

    def explain(self, worker: str) -> Loss:
        """Return why a worker was lost, by what SLURM says of its job and by what the worker left behind."""
        asked, loss = self._explained.get(worker, (float("-inf"), Loss()))
        if time.monotonic() - asked > _ASK_AGAIN_S:
            loss = self._found_out(worker)
            self._explained[worker] = time.monotonic(), loss
        return loss

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

    def _take_note(self, seats: Collection[Seat], busy: Collection[str], snapshot: Snapshot, now: float) -> None:
        roster = self._roster
        for member in roster.note({seat.name for seat in seats}, busy, now):
            self._deaths.forget(member.kind)
        roster.note_queue(snapshot.jobs, now)
        gone = roster.take_ended(snapshot.jobs, snapshot.read)
        # One whose job runs without it, hung at its start or killed at each, holds a node for nothing.
        absent = roster.take_absent(now, 2 * self._site.profile.start_timeout_s)
        # Submitted, though sbatch was not told so in time: nobody would give it back.
        unknown = set(snapshot.jobs) - set(self._submission.ids.values()) - self._unknown
        self._unknown |= unknown
        commands.cancel([*(member.job_id for member in absent), *unknown])
        connected = {seat.kind for seat in seats}
        for member in (*gone, *absent):
            if not member.seen:
                self._deaths.add(member, others=member.kind in connected)

    def _give_back(self, members: Sequence[Member], seats: Collection[Seat]) -> None:
        names = {member.name for member in members}
        for name in names:
            del self._roster.members[name]
        addresses = [seat.address for seat in seats if seat.name in names]
        if addresses:
            self._retire(addresses)
        commands.cancel(member.job_id for member in members)

    def _found_out(self, worker: str) -> Loss:
        fate = commands.fate(self._submission.ids.get(worker, ""))
        if fate.state == "OUT_OF_MEMORY":
            return Loss("out of memory: SLURM ended the worker's job", out_of_memory=True)
        if fate.state in BLAMELESS:
            return Loss(BLAMELESS[fate.state], blameless=True)
        if self._site.files.farewell(worker).exists():
            return Loss(TOLD, blameless=True)
        if commands.is_down(fate.node):  # SLURM takes minutes to tell it of the job
            return Loss(BLAMELESS["NODE_FAIL"], blameless=True)
        return Loss(f"{LOST} (see {self._site.files.log(worker)})")

    def _mind_waiting(self, hungry: Sequence[Size], snapshot: Snapshot, now: float, *, working: bool) -> None:
        if not hungry:
            self._hungry_since = None
            return
        self._hungry_since = self._hungry_since or now
        waited = now - self._hungry_since
        hopeless = next((job for job in snapshot.jobs.values() if job.reason in _HOPELESS), None)
        if hopeless is not None:
            raise NoWorkersError(
                f"job {hopeless.job_id} would wait for ever, by SLURM's reason: {hopeless.reason}. Check partition, "
                "walltime and directives of the profile"
            )
        if self._queue_timeout_s and waited > self._queue_timeout_s and not working:
            kinds = " and ".join(sorted({size.kind for size in hungry}))
            raise NoWorkersError(f"no {kinds} worker came within {self._queue_timeout_s:g} s; {_standing(snapshot)}")
        if now - self._said > _SAY_EVERY_S and waited > 2 * self._site.profile.poll_s:
            self._said = now
            self._say(_standing(snapshot))


def _standing(snapshot: Snapshot) -> str:
    """Return how the jobs of a run stand, as one would tell somebody who waits for them."""
    waiting = [job for job in snapshot.jobs.values() if job.state == commands.PENDING]
    others = len(snapshot.jobs) - len(waiting)
    if waiting:
        jobs = "1 job is" if len(waiting) == 1 else f"{len(waiting)} jobs are"
        return f"{jobs} waiting in SLURM's queue, by its reason: {', '.join(sorted({job.reason for job in waiting}))}"
    if others:
        jobs = "1 job runs" if others == 1 else f"{others} jobs run"
        return f"{jobs}, and a worker that is needed has not connected yet (see the logs)"
    return "SLURM's queue shows no job of this run yet"
