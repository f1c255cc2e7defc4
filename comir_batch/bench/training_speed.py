"""How fast a training step and inference are, beside what they are measured against, in turn on the same machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from comir_batch.training.speed import contests, with_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from comir_batch.training.speed import Contest


@dataclass(frozen=True, slots=True)
class SpeedRow:
    """Medians over the repeats.

    Attributes
    ----------
    work : str
        What was done.
    ours_s, other_s : float
        CPU seconds of all threads.
    ratio : float
        ``other_s / ours_s``: how many times faster ours is.
    ours_wall_s, other_wall_s : float
        Seconds by the clock; other work on the machine lengthens them.
    note : str
        What the other way is, and what went in.
    """

    work: str
    ours_s: float
    other_s: float
    ratio: float
    ours_wall_s: float
    other_wall_s: float
    note: str


class _Spent(NamedTuple):
    cpu_s: float
    wall_s: float


def measure(repeats: int, threads: int) -> list[SpeedRow]:
    """Measure the loss of each critic, a training step and inference, with so many threads of torch."""
    with with_threads(threads):
        return [compare(contest, repeats) for contest in contests()]


def compare(contest: Contest, repeats: int) -> SpeedRow:
    """Do both ways once unmeasured, then in turn ``repeats`` times; every other time the other way goes first."""
    ways = (contest.ours, contest.other)
    spent: dict[Callable[[], object], list[_Spent]] = {way: [] for way in ways}
    for way in ways:
        way()
    for number in range(repeats):
        for way in ways if number % 2 == 0 else reversed(ways):
            spent[way].append(_spent(way))
    ours, other = (_medians(spent[way]) for way in ways)
    return SpeedRow(
        contest.work, ours.cpu_s, other.cpu_s, other.cpu_s / ours.cpu_s, ours.wall_s, other.wall_s, contest.note
    )


def _spent(way: Callable[[], object]) -> _Spent:
    cpu, wall = time.process_time(), time.perf_counter()
    way()
    return _Spent(time.process_time() - cpu, time.perf_counter() - wall)


def _medians(spent: Iterable[_Spent]) -> _Spent:
    cpu, wall = zip(*spent, strict=True)
    return _Spent(median(cpu), median(wall))
