"""The workers of a run that are jobs of SLURM: which there are, which are wanted, which are of no more use.

Pure decisions on what is known; `workforce` acts on them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.execution.slurm.commands import RUNNING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from comir_batch.core.profile import Jobs
    from comir_batch.core.task import Resource
    from comir_batch.execution.slurm.commands import QueuedJob
    from comir_batch.execution.workforce import Need, Seat

# A queue that was read this soon after a submission need not show the job.
_FRESH_S = 3.0


@dataclass(slots=True)
class Member:
    """A worker's job.

    Attributes
    ----------
    name : str
        Of the worker.
    kind : Resource
        Of its tasks.
    memory_mb : int
        Of the job, in MiB.
    job_id : str
        SLURM's.
    submitted : float
        When, on the clock that the roster is told.
    seen : bool
        Whether the worker has connected.
    busy_at : float
        When it last had a task, or connected, or was wanted.
    present_at : float
        When it was last seen, or when its job was first seen to run; 0 before that.
    node : str
        Where its job runs, once that is known.
    """

    name: str
    kind: Resource
    memory_mb: int
    job_id: str
    submitted: float
    seen: bool = False
    busy_at: float = 0.0
    present_at: float = 0.0
    node: str = ""


class Size(NamedTuple):
    """Kind and memory of a job."""

    kind: Resource
    memory_mb: int


class Roster:
    """Members, by name.

    Parameters
    ----------
    kinds : mapping of Resource to Jobs
        What the site offers.
    slots : mapping of Resource to int
        Tasks that a worker of a kind takes at once.
    """

    def __init__(self, kinds: Mapping[Resource, Jobs], slots: Mapping[Resource, int]) -> None:
        self._kinds, self._slots = kinds, slots
        self.members: dict[str, Member] = {}

    def sizes(self, kind: Resource) -> list[int]:
        """Return the memory of the jobs that a kind may have: the usual one, its doubles, and the most."""
        jobs = self._kinds[kind]
        doublings = math.ceil(math.log2(jobs.limit_mb / jobs.memory_mb))
        return [min(jobs.memory_mb << step, jobs.limit_mb) for step in range(doublings + 1)]

    def add(self, member: Member) -> None:
        """Take a submitted job in."""
        member.busy_at = member.submitted
        self.members[member.name] = member

    def note(self, present: Collection[str], busy: Collection[str], now: float) -> list[Member]:
        """Note which workers are connected and which have tasks; return those that are connected for the first time."""
        new = [member for member in self.members.values() if not member.seen and member.name in present]
        for member in new:
            member.seen, member.busy_at = True, now
        for name in {*present, *busy}:
            if name in self.members:
                self.members[name].present_at = now
        for name in busy:
            if name in self.members:
                self.members[name].busy_at = now
        return new

    def note_queue(self, queued: Mapping[str, QueuedJob], now: float) -> None:
        """Note which jobs run, and where."""
        for member in self.members.values():
            job = queued.get(member.job_id)
            if job is not None and job.state == RUNNING:
                member.node = job.node or member.node
                member.present_at = member.present_at or now

    def take_ended(self, queued: Mapping[str, QueuedJob], read: float) -> list[Member]:
        """Remove and return the members whose jobs a queue that was read at some time does not show any more."""
        ended = [m for m in self.members.values() if m.job_id not in queued and read - m.submitted > _FRESH_S]
        for member in ended:
            del self.members[member.name]
        return ended

    def take_absent(self, now: float, patience_s: float) -> list[Member]:
        """Remove and return the members whose jobs run but whose workers have not been connected for so long."""
        absent = [m for m in self.members.values() if m.present_at and now - m.present_at > patience_s]
        for member in absent:
            del self.members[member.name]
        return absent

    def missing(self, needs: Sequence[Need]) -> list[Size]:
        """Return the jobs to submit, so that every need has a slot, as far as the site's number of jobs allows."""
        orders: list[Size] = []
        for kind, jobs in self._kinds.items():
            room = jobs.jobs - sum(member.kind is kind for member in self.members.values())
            for size, wanted in sorted(self._wanted(kind, needs).items(), reverse=True):
                have = sum(m.kind is kind and m.memory_mb == size for m in self.members.values())
                # One of a larger size may come on top, or smaller ones that idle would keep its task waiting.
                on_top = int(have == 0 and size > jobs.memory_mb)
                count = max(0, min(wanted - have, max(room, on_top)))
                orders += [Size(kind, size)] * count
                room -= count
        return orders

    def idle(self, needs: Sequence[Need], now: float) -> list[Member]:
        """Return the members that are of no use: unused for the site's time, and more than are wanted."""
        surplus: list[Member] = []
        for kind, jobs in self._kinds.items():
            wanted = self._wanted(kind, needs)
            mine = sorted((m for m in self.members.values() if m.kind is kind), key=lambda m: m.busy_at)
            have = Counter(member.memory_mb for member in mine)
            for member in mine:
                if have[member.memory_mb] <= wanted[member.memory_mb]:
                    member.busy_at = now
                elif now - member.busy_at > jobs.idle_s:
                    have[member.memory_mb] -= 1
                    surplus.append(member)
        return surplus

    def hungry(self, needs: Sequence[Need], seats: Iterable[Seat]) -> list[Size]:
        """Return the sizes that are needed and that no connected worker has."""
        present = list(seats)
        wanted = [Size(kind, size) for kind in self._kinds for size in self._wanted(kind, needs)]
        return [size for size in wanted if not any(self._suits(seat, size) for seat in present)]

    def _suits(self, seat: Seat, size: Size) -> bool:
        return seat.kind is size.kind and seat.memory_mb >= size.memory_mb // self._slots[size.kind]

    def _wanted(self, kind: Resource, needs: Sequence[Need]) -> Counter[int]:
        """Return the number of jobs of each size that the needs come to."""
        slots, sizes = self._slots[kind], self.sizes(kind)
        tasks = Counter(
            next((size for size in sizes if size // slots >= need.memory_mb), sizes[-1])
            for need in needs
            if need.kind is kind
        )
        return Counter({size: math.ceil(count / slots) for size, count in tasks.items()})
