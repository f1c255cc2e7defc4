"""Workers that end before they have connected: a fault of the site, or of one node of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from comir_batch.core.errors import NoWorkersError
from comir_batch.execution.slurm import commands
from comir_batch.execution.worker import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.task import Resource
    from comir_batch.execution.slurm.roster import Member

_IN_A_ROW = 3
_TAIL_LINES = 15
# Of a job that ended or is about to: what SLURM, not the worker or its task, did.
BLAMELESS = {
    "PREEMPTED": "the worker's job was preempted",
    "TIMEOUT": "the worker's job reached its walltime",
    "NODE_FAIL": "the worker's node failed",
    "CANCELLED": "the worker's job was cancelled",
    "BOOT_FAIL": "the worker's node failed to start",
    "DEADLINE": "the worker's job reached its deadline",
}


class EarlyDeaths:
    """Counts them, and decides what they mean.

    Parameters
    ----------
    log : callable
        Names the log of a worker.
    say : callable
        Takes sentences for the user.

    Attributes
    ----------
    nodes : set of str
        Nodes where workers died while others of their kind were well: to be kept away from.
    """

    def __init__(self, log: Callable[[str], Path], say: Callable[[str], None]) -> None:
        self._log, self._say = log, say
        self._counts: Counter[Resource] = Counter()
        self.nodes: set[str] = set()

    def forget(self, kind: Resource) -> None:
        """Take note that a worker of a kind has connected."""
        self._counts[kind] = 0

    def add(self, member: Member, *, others: bool) -> None:
        """Take note of a worker that ended, or was ended, before it had connected.

        Parameters
        ----------
        member : Member
            The worker.
        others : bool
            Whether others of its kind are connected: then its node is at fault, not the site.

        Raises
        ------
        NoWorkersError
            If the worker refused to start, or was the third in a row, and there are no others.
        """
        fate = commands.fate(member.job_id)
        if fate.state in BLAMELESS:
            return
        tail = self._tail(member.name)
        refusal = next((line.removeprefix(REFUSED).strip() for line in tail if line.startswith(REFUSED)), "")
        node = member.node or fate.node
        if others:
            self._say(f"a {member.kind} worker ended before it connected, on {node or 'a node'}, which is avoided from "
                      f"now on: {refusal or f'see {self._log(member.name)}'}")  # fmt: skip
            self.nodes |= {node} - {""}
            return
        if refusal:
            raise NoWorkersError(f"a {member.kind} worker would not start: {refusal}")
        self._counts[member.kind] += 1
        if self._counts[member.kind] >= _IN_A_ROW:
            said = "\n".join(f"    {line}" for line in tail) or "    (nothing)"
            raise NoWorkersError(
                f"{_IN_A_ROW} {member.kind} workers in a row ended before they connected; {self._log(member.name)} "
                f"ends with\n{said}"
            )

    def _tail(self, worker: str) -> list[str]:
        try:
            text = self._log(worker).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        return text.splitlines()[-_TAIL_LINES:]
