"""Submitting the jobs of workers: checked before the first, and patient with a controller that is busy or away."""

from __future__ import annotations

import secrets
import time
from itertools import count
from typing import TYPE_CHECKING

from comir_batch.core.errors import NoWorkersError
from comir_batch.execution.slurm import commands
from comir_batch.execution.slurm.commands import SlurmError
from comir_batch.execution.slurm.roster import Member, Size
from comir_batch.execution.slurm.script import Order, job_script

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from comir_batch.core.task import Resource
    from comir_batch.execution.slurm.script import Site

_AFTER_REFUSAL_S = 60.0
_PATIENCE_S = 1800.0
_NEVER = (0.0, float("-inf"))
_AT_ONCE = 8  # sbatch may take seconds, and the driver has more to do


class Submission:
    """Submits workers of a run.

    Parameters
    ----------
    site : Site
        What the jobs have in common.
    scheduler : str
        Address of the Dask scheduler.
    job_name : str
        Of all jobs.
    say : callable
        Takes sentences for the user.

    Attributes
    ----------
    ids : dict
        SLURM's id of every job that was submitted, by the worker's name.
    """

    def __init__(self, site: Site, scheduler: str, job_name: str, say: Callable[[str], None]) -> None:
        self._site, self._scheduler, self._job_name, self._say = site, scheduler, job_name, say
        self._token, self._numbers = secrets.token_hex(2), count(1)
        self._refused: dict[Size, tuple[float, float]] = {}  # when first, and when last
        self.ids: dict[str, str] = {}

    def check(self, kind: Resource, sizes: Iterable[int]) -> None:
        """Let SLURM check jobs of some sizes without submitting them.

        Raises
        ------
        NoWorkersError
            If it refuses one, with its reason.
        """
        for memory_mb in sizes:
            size = Size(kind, memory_mb)
            script = self._written(size, f"{kind}-check", ())
            try:
                commands.check_submission(script)
            except SlurmError as error:
                raise self._refusal(size, error) from error

    def submit(self, sizes: Iterable[Size], exclude: Collection[str], present: Collection[Resource]) -> list[Member]:
        """Submit some of the jobs, as many as can be at once, and return them.

        Parameters
        ----------
        sizes : iterable of Size
            The jobs.
        exclude : collection of str
            Nodes to keep away from.
        present : collection of Resource
            Kinds that have a worker; of these a refusal is never the end.

        Raises
        ------
        NoWorkersError
            If SLURM has refused jobs of a kind that has no worker for half an hour.
        """
        now, members = time.monotonic(), []
        due = [size for size in sizes if now - self._refused.get(size, _NEVER)[1] > _AFTER_REFUSAL_S]
        for size in due[:_AT_ONCE]:
            name = f"{size.kind}-{next(self._numbers)}-{self._token}"
            try:
                job_id = commands.submit(self._written(size, name, exclude))
            except SlurmError as error:
                self._note_refusal(size, error, now, alone=size.kind not in present)
                break
            self._refused.pop(size, None)
            self.ids[name] = job_id
            members.append(Member(name, size.kind, size.memory_mb, job_id, time.monotonic()))
        return members

    def _note_refusal(self, size: Size, error: SlurmError, now: float, *, alone: bool) -> None:
        first, _ = self._refused.get(size, (now, now))
        if alone and now - first > _PATIENCE_S:
            raise self._refusal(size, error) from error
        self._refused[size] = first, now
        self._say(f"SLURM refused a {size.kind} job, which is tried again in a minute: {error}")

    def _written(self, size: Size, name: str, exclude: Collection[str]) -> Path:
        nodes = tuple(sorted(exclude))
        order = Order(name, self._job_name, size.kind, size.memory_mb, self._scheduler, nodes)
        path = self._site.files.script(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(job_script(order, self._site), encoding="utf-8")
        return path

    def _refusal(self, size: Size, error: SlurmError) -> NoWorkersError:
        return NoWorkersError(
            f"SLURM refused the {size.kind} workers' job: {error}. Check [{size.kind}] of the profile; the job, of "
            f"{size.memory_mb / 1024:g} GiB, was {self._site.files.script(f'{size.kind}-check')}"
        )
