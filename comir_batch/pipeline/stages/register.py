"""register: the transform of a pair, from its representations and its raw images."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comir_batch.core.task import Task
from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import read_transform, write_json
from comir_batch.pipeline import cost
from comir_batch.pipeline.files import write_arrays
from comir_batch.pipeline.files import write_json as write_plain_json
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import RegisterFiles
from comir_batch.pipeline.refinement import Refinement
from comir_batch.pipeline.views import Side, load_views, read_landmarks, read_mb, reduction
from comir_batch.registration.memory import registration_memory_mb
from comir_batch.registration.outline import outlines
from comir_batch.registration.register import register
from comir_batch.registration.starts import margin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.register import Registration
    from comir_batch.registration.starts import Start


STOPPED = "stopped_at_s"
"""In the value of a pair's task: elastix' time limit, where it was too short for some fit."""


@dataclass(frozen=True, slots=True)
class RegisterWork:
    """What registering one pair takes.

    Attributes
    ----------
    deformable : bool
        Whether a B-spline is fitted.
    by_blocks : bool
        Whether what elastix found is refined by blocks of the working level.
    initial : Path or None
        The user's start.
    landmarks : (Path or None, Path or None)
        Fixed and moving ones, where the fit shall heed them.
    outlined : bool
        Whether tissue was found, so that it ends where glass begins, and the outlines shall count.
    """

    folder: Path
    fixed: Side
    moving: Side
    deformable: bool
    by_blocks: bool
    initial: Path | None
    config: RegisterConfig
    landmarks: tuple[Path | None, Path | None] = (None, None)
    outlined: bool = False

    @property
    def files(self) -> RegisterFiles:
        """Where the results go."""
        return RegisterFiles(self.folder)

    @property
    def found(self) -> Path:
        """The transform that elastix finds; blocks refine it into another."""
        return self.files.unrefined if self.by_blocks else self.files.transform

    @property
    def reduction(self) -> int:
        """How much coarser than the working level registration works, to fit its memory."""
        return reduction(self.fixed, self.moving, self.config)

    @property
    def memory_mb(self) -> int:
        """Most memory of the task, elastix' child process included."""
        return registration_memory_mb(self._pair.pixels, seconded=self.config.second_metric == "raw")

    @property
    def _pair(self) -> cost.PairSize:
        sides = (self.fixed.working.grid, self.moving.working.grid)
        pixels = max(g.width * g.height for g in sides) // self.reduction**2
        represented = self.fixed.representation is not None
        return cost.PairSize(sides[0].reduced(self.reduction), pixels, represented, self.deformable)

    @property
    def refinement(self) -> Refinement:
        """What follows, where it is asked for."""
        return Refinement(self.folder, self.fixed, self.moving, self.reduction, self.config)

    def estimate(self) -> Estimate:
        """Return what it will take."""
        tasks, times, cpu_s = 1, 1, cost.register_s(self._pair, self.config)
        if self.by_blocks:
            tasks, times = 2 + len(self.refinement.regions), 2
            cpu_s += cost.blocks_s(self.refinement.blocks)
        read = times * read_mb((self.fixed, self.moving))
        return Estimate(tasks, self.memory_mb, cost.REGISTER_MB, read_mb=read, cpu_s=cpu_s)

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """One task for the pair; then, if it is refined, one for each region and one that fits their blocks."""
        if number == 0:
            return [Task(f"{key}-pair", register_pair, self, memory_mb=self.memory_mb, writes=(self.found,))]
        if number > 2 or not self.by_blocks:
            return None
        return self.refinement.matching(key) if number == 1 else self.refinement.fitting(key)


def register_pair(work: RegisterWork) -> dict[str, Any]:
    """Search, fit and write the transform; runs on a worker."""
    for folder, wanted in ((work.files.elastix, True), (work.files.block_folder, work.by_blocks)):
        shutil.rmtree(folder, ignore_errors=True)
        if wanted:
            folder.mkdir(parents=True)
    views = load_views(work.fixed, work.moving, work.reduction)
    initial = None if work.initial is None else read_transform(work.initial)
    found = register(
        views,
        work.config,
        deformable=work.deformable,
        initial=initial,
        folder=work.files.elastix,
        landmarks=read_landmarks(work.landmarks, work.fixed, work.moving),
        outline=outlines(views[-1]) if work.outlined else None,
    )
    write_arrays(work.files.held_out, held_out=found.held_out)
    for check, path in ((found.other, work.files.other), (found.backward, work.files.backward)):
        if check.transform is not None:
            write_json(check.transform, path)
    write_plain_json(work.files.summary, _summary(found))
    write_json(found.transform, work.found)
    checks = found.other.out_of_time or found.backward.out_of_time
    late = checks or any(attempt.out_of_time for attempt in found.attempts)
    return {"view": found.view} | ({STOPPED: work.config.time_limit_s} if late else {})


def _summary(found: Registration) -> dict[str, Any]:
    """Return what the report tells of the search, in JSON's own types."""
    chosen = found.candidates[0]
    return {
        "view": found.view,
        "set_aside": found.set_aside,
        "start": None if found.winner is None else Composite((found.winner.transform,)).to_dict(),
        "attempts": [attempt._asdict() for attempt in found.attempts],
        "other_error": found.other.error,
        "backward_error": found.backward.error,
        "margin_nats": margin(found.candidates),
        "seconds": {step: round(seconds, 2) for step, seconds in found.seconds.items()},
        "candidates": [_candidate(start, chosen=start is chosen) for start in found.candidates],
    }


def _candidate(start: Start, *, chosen: bool) -> dict[str, Any]:
    scores = {f"{start.candidate.by} z": start.candidate.z} if start.candidate else {}
    scores |= {f"{name} nats": nats for name, nats in start.likelihood.items()}
    scores |= {f"{name} held out z": z for name, z in start.held_out.items()}
    return {
        "angle_deg": start.angle,
        "mirrored": start.mirrored,
        "scores": {name: value for name, value in scores.items() if math.isfinite(value)},
        "chosen": chosen,
    }
