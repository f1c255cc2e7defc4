"""The same work done by us and by others, in turn on one machine: what each takes, and whether they agree."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from comir_batch.pipeline.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Run = Callable[[Path], Any]

Judged = Literal["cpu", "wall"]
PLAIN_ZARR = "zarr.core.codec_pipeline.BatchedCodecPipeline"
"""Codec pipeline of zarr-python as it comes, which other programs use; ours takes `zarrs` where it is installed."""


class Agreement(NamedTuple):
    """Whether two results are the same within a tolerance, and in words how near they are."""

    good: bool
    text: str

    def __str__(self) -> str:
        return self.text if self.good else f"NO: {self.text}"


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """One way to do some work.

    Attributes
    ----------
    name : str
        The program and its function.
    run : callable
        Does the work once; takes an empty folder for what it writes, and returns what came out.
    needs : str
        Import name of a package that may not be installed; empty for none.
    aim : float
        How many times as fast ours is to be.
    note : str
        What it was given and what is not counted.
    unable : str
        Why it cannot do this work at all; empty where it can.
    cpu_s : callable
        CPU seconds up to now of all that works for it: all threads of this process, unless another one does the work.
    """

    name: str
    run: Run
    needs: str = ""
    aim: float = 1.0
    note: str = ""
    unable: str = ""
    cpu_s: Callable[[], float] = time.process_time

    def lacking(self) -> str:
        """Return why it cannot run here; empty where it can."""
        if self.needs and importlib.util.find_spec(self.needs) is None:
            return f"{self.needs} is not installed (pip install 'comir-batch[peers]')"
        return self.unable


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Some work, and who does it.

    Attributes
    ----------
    group : str
        Name of the group of rows.
    work : str
        What is done, and to how much.
    ours : Contender
        As comir-batch does it.
    others : tuple of Contender
        What it is compared with.
    agreement : callable
        Compares what ours and another one returned, while the files of both are there.
    judged : {"cpu", "wall"}
        Which seconds the aims are held against: CPU seconds, unless another device computes.
    """

    group: str
    work: str
    ours: Contender
    others: tuple[Contender, ...]
    agreement: Callable[[Any, Any], Agreement]
    judged: Judged = "cpu"


class Interval(NamedTuple):
    """Median, smallest and largest of the repeats; of five, smallest and largest hold the median of all with 94 %."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Return the interval of some values."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


class Seconds(NamedTuple):
    """CPU seconds of all threads, and seconds by the clock."""

    cpu: Interval
    wall: Interval


@dataclass(frozen=True, slots=True)
class Row:
    """Ours beside one other.

    Attributes
    ----------
    group, work, other, aim, judged, note
        As in `Comparison` and `Contender`.
    ours_s, other_s, ratio : Seconds or None
        Of both, and how many times as fast ours is: the ratio within each repeat. None where the other did not run.
    agrees : str
        How near the results are.
    differs : bool
        Whether they are not near enough, so that speed is beside the point.
    missing : str
        Why the other did not run; empty where it did.
    """

    group: str
    work: str
    other: str
    aim: float
    judged: Judged
    note: str
    ours_s: Seconds | None = None
    other_s: Seconds | None = None
    ratio: Seconds | None = None
    agrees: str = "-"
    missing: str = ""
    differs: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the results agree and the median ratio reaches the aim; None where there is none."""
        if self.ratio is None:
            return None
        return not self.differs and bool(getattr(self.ratio, self.judged).median >= self.aim)

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table as text, see `COLUMNS`."""
        aim = f"{self.aim:g}"
        if self.ours_s is None or self.other_s is None or self.ratio is None:
            return self.work, f"{self.other}: {self.missing}", *("-",) * 5, aim, "not measured", self.agrees
        seconds = (f"{self.ours_s.cpu.median:.3g}", f"{self.other_s.cpu.median:.3g}", str(self.ratio.cpu))
        clock = (f"{self.ours_s.wall.median:.3g} / {self.other_s.wall.median:.3g}", str(self.ratio.wall))
        other = f"{self.other}; {self.note}" if self.note else self.other
        met = "results differ" if self.differs else "yes" if self.met else "missed"
        return self.work, other, *seconds, *clock, aim, met, self.agrees


COLUMNS = (
    "work",
    "beside",
    "ours, CPU s",
    "its CPU s",
    "times as fast, CPU (range)",
    "wall s, ours / its",
    "times as fast, wall (range)",
    "aim",
    "met",
    "results agree",
)


class _Spent(NamedTuple):
    cpu_s: float
    wall_s: float


def compare(comparison: Comparison, repeats: int, folder: Path) -> list[Row]:
    """Let all do the work once unmeasured, hold the results against each other, then let them in turn do it again.

    Every other time the order is turned round. What was written is removed between the runs, off the clock.

    Parameters
    ----------
    comparison : Comparison
        The work.
    repeats : int
        Measured runs of each.
    folder : Path
        Takes what is written, and is removed.

    Returns
    -------
    list of Row
        One for each other; who cannot run here, or fails, has a row that says why.
    """
    try:
        agreed = _agreements(comparison, folder)
        able = [other for other in comparison.others if isinstance(agreed[other.name], Agreement)]
        spent = _spent(comparison.ours, able, repeats, folder)
    finally:
        remove_tree(folder)
    return [_row(comparison, other, agreed[other.name], spent) for other in comparison.others]


def _agreements(comparison: Comparison, folder: Path) -> dict[str, Agreement | str]:
    """Return how each result agrees with ours, or why there is none."""
    ours = comparison.ours.run(_fresh(folder / "ours"))
    return {other.name: _agreement(comparison, ours, other, folder / "other") for other in comparison.others}


def _agreement(comparison: Comparison, ours: Any, other: Contender, folder: Path) -> Agreement | str:
    lacking = other.lacking()
    if lacking:
        return lacking
    try:
        return comparison.agreement(ours, other.run(_fresh(folder)))
    except Exception as error:  # noqa: BLE001  a fault of another program is a row, and does not take the others along
        return f"failed: {' '.join(str(error).split())[:200] or type(error).__name__}"


def _spent(ours: Contender, others: Sequence[Contender], repeats: int, folder: Path) -> dict[str, list[_Spent]]:
    ways = [ours, *others]
    spent: dict[str, list[_Spent]] = {way.name: [] for way in ways}
    for number in range(repeats):
        for way in _turn(ways, number):
            spent[way.name].append(_measured(way, _fresh(folder / "measured")))
    return spent


def _turn(ways: Sequence[Contender], number: int) -> Iterator[Contender]:
    return iter(ways) if number % 2 == 0 else reversed(ways)


def _measured(way: Contender, folder: Path) -> _Spent:
    cpu, wall = way.cpu_s(), time.perf_counter()
    way.run(folder)
    return _Spent(way.cpu_s() - cpu, time.perf_counter() - wall)


def _fresh(folder: Path) -> Path:
    remove_tree(folder)
    folder.mkdir(parents=True)
    return folder


def _row(comparison: Comparison, other: Contender, agreed: Agreement | str, spent: dict[str, list[_Spent]]) -> Row:
    said = (comparison.group, comparison.work, other.name, other.aim, comparison.judged, other.note)
    if isinstance(agreed, str):
        return Row(*said, missing=agreed)
    ours, its = spent[comparison.ours.name], spent[other.name]
    cpu = [b.cpu_s / a.cpu_s for a, b in zip(ours, its, strict=True)]
    wall = [b.wall_s / a.wall_s for a, b in zip(ours, its, strict=True)]
    ratio = Seconds(Interval.of(cpu), Interval.of(wall))
    return Row(*said, _seconds(ours), _seconds(its), ratio, str(agreed), differs=not agreed.good)


def _seconds(spent: Sequence[_Spent]) -> Seconds:
    cpu, wall = zip(*spent, strict=True)
    return Seconds(Interval.of(cpu), Interval.of(wall))
