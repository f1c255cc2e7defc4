"""Jobs: one stage of one slide or pair, expanded into tasks when its inputs exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.task import Resource, Task

Device = Literal["cpu", "cuda"]

STAGES = ("chunk", "represent", "register", "judge", "warp", "export", "report")


class Estimate(NamedTuple):
    """What a job will take, from headers alone.

    Attributes
    ----------
    tasks : int
        At most; blocks without tissue fall away.
    memory_mb : int
        Of its largest task.
    disk_mb : float
        Written, before compression.
    tiles : int
        At most, that a network sees.
    read_mb : float
        Read, decoded: pixels of the slides and of the run's own arrays.
    cpu_s : float
        CPU time on the machine of `cost.MACHINE`, as if all of it were tissue; of networks, too, wherever they run.
    """

    tasks: int
    memory_mb: int
    disk_mb: float = 0.0
    tiles: int = 0
    read_mb: float = 0.0
    cpu_s: float = 0.0


class Inference(NamedTuple):
    """Where networks compute.

    Attributes
    ----------
    device : {"cpu", "cuda"}
        Part of what representations depend on.
    resource : Resource
        The workers that run them; they need not have that device to be of that kind, so it changes no result.
    """

    device: Device
    resource: Resource


class Work(Protocol):
    """What a job does: phases, each a number of tasks that may run at once; small, frozen, picklable."""

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """Return the tasks of a phase, or None after the last; called when the phase before is done."""
        ...

    def estimate(self) -> Estimate:
        """Return what it will take."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One stage of one slide or pair.

    Attributes
    ----------
    stage : str
        One of `STAGES`.
    fingerprint : str
        Names its result.
    work : Work
        What it does.
    resource : Resource
        The workers that it mostly needs, for the plan.
    pairs : tuple of str
        Pairs that need it.
    inputs : tuple of str
        Keys of jobs that must be done, or skipped by their gate, before; if one fails, so does this.
    settles : tuple of str
        Keys of jobs that must have come to their end before, whatever it is.
    gate : str
        Key of a judge job; the job is skipped when that pair is rejected. Empty for none.
    outputs : tuple of Path
        What its first phase makes, and what must exist for its finished tasks to count.
    bulky : Path or None
        What is large, and of no use once its pairs are published; all else is small, and spares later commands work.
    published : tuple of Path
        What it writes, or may write, outside its own folder.
    """

    stage: str
    fingerprint: str
    work: Work
    resource: Resource
    pairs: tuple[str, ...]
    outputs: tuple[Path, ...]
    inputs: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    gate: str = ""
    bulky: Path | None = None
    published: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """`<stage>-<fingerprint>`, the job's name and that of its folder."""
        return f"{self.stage}-{self.fingerprint}"

    @property
    def depth(self) -> int:
        """Position of its stage; deeper stages go first."""
        return STAGES.index(self.stage)
