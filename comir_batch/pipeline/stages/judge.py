"""judge: the evidence for and against a transform, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.task import Task
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline import cost
from comir_batch.pipeline.evidence import Found, gather, sights
from comir_batch.pipeline.files import read_arrays, read_json, write_arrays, write_json
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import JudgeFiles, RegisterFiles
from comir_batch.pipeline.refinement import read_counts
from comir_batch.pipeline.start import start_transform
from comir_batch.pipeline.views import Side, load_views, read_landmarks, read_mb, reduction
from comir_batch.quality.points import judge_landmarks
from comir_batch.quality.verdict import judge
from comir_batch.registration import parameters
from comir_batch.registration.fit import Attempt
from comir_batch.registration.memory import registration_memory_mb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from comir_batch.core.config import JudgeConfig, RegisterConfig
    from comir_batch.pipeline.evidence import Sight
    from comir_batch.quality.points import Landmarks

_SIMILARITY_NAMES = {"ncc": "normalised correlation of the CoMIRs", "mi": "mutual information of the raw images"}


@dataclass(frozen=True, slots=True)
class JudgeWork:
    """What judging one pair takes.

    Attributes
    ----------
    landmarks : (Path or None, Path or None)
        Of the fixed and the moving slide.
    model : (str, int) or None
        Name of the model and number of slides that it learnt from.
    """

    folder: Path
    register: Path
    fixed: Side
    moving: Side
    initial: Path | None
    landmarks: tuple[Path | None, Path | None]
    model: tuple[str, int] | None
    model_choice: str
    registration: RegisterConfig
    config: JudgeConfig

    @property
    def files(self) -> JudgeFiles:
        """Where the results go."""
        return JudgeFiles(self.folder)

    @property
    def memory_mb(self) -> int:
        """Most memory of the task; less than registration takes of the same images."""
        return registration_memory_mb(self._pixels)

    @property
    def _pixels(self) -> int:
        pixels = max(side.working.grid.width * side.working.grid.height for side in (self.fixed, self.moving))
        return pixels // reduction(self.fixed, self.moving, self.registration) ** 2

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """One task."""
        return [Task(f"{key}-pair", judge_pair, self, memory_mb=self.memory_mb)] if number == 0 else None

    def estimate(self) -> Estimate:
        """Return what it will take."""
        read = read_mb((self.fixed, self.moving))
        return Estimate(1, self.memory_mb, read_mb=read, cpu_s=cost.judge_s(self._pixels))


def judge_pair(work: JudgeWork) -> dict[str, Any]:
    """Gather the evidence, judge, and write the verdict; runs on a worker."""
    found = _found(work)
    factor = reduction(work.fixed, work.moving, work.registration)
    seen = sights(load_views(work.fixed, work.moving, factor), found)
    evidence = gather(seen, found, work.registration.seed, work.model, _landmarks(work, found))
    judgement = judge(evidence, work.config)
    _write_tiles(work, seen[found.view])
    reasons = [*judgement.reasons, *_own_files(work, found, seen[found.view]), work.model_choice]
    content = {"verdict": judgement.verdict.value, "reasons": reasons, "metrics": judgement.metrics}
    write_json(work.files.verdict, content)
    return {"verdict": judgement.verdict.value}


def _found(work: JudgeWork) -> Found:
    files = RegisterFiles(work.register)
    summary = read_json(files.summary)
    return Found(
        view=summary["view"],
        start=start_transform(work.fixed.working.grid, work.moving.working.grid, work.initial),
        transform=read_transform_json(files.transform),
        held_out=read_arrays(files.held_out)["held_out"],
        attempts=[Attempt(**attempt) for attempt in summary["attempts"]],
        other=read_transform_json(files.other) if files.other.exists() else None,
        backward=read_transform_json(files.backward) if files.backward.exists() else None,
        backward_error=summary["backward_error"],
        margin_nats=summary["margin_nats"],
        blocks=read_counts(files),
        set_aside=summary["set_aside"],
        other_error=summary["other_error"],
    )


def _own_files(work: JudgeWork, found: Found, sight: Sight) -> Iterator[str]:
    """Yield what has to be told of the user's own parameter files, if they gave the transform."""
    if len(found.attempts) > 1:
        return
    fitted, other = ("representations", "raw images") if found.view == "comir" else ("raw images", "representations")
    for name in parameters.others_metrics(work.registration, sight.view.metric):
        yield (
            f"register.parameter_files compare by {name}, by which the presets compare {other}; the pair was fitted in "
            f"its {fitted}"
        )


def _landmarks(work: JudgeWork, found: Found) -> Landmarks | None:
    points = read_landmarks(work.landmarks, work.fixed, work.moving)
    if points is None:
        return None
    diagonal, fitted = math.hypot(*work.moving.working.info.grid().size_um), work.registration.second_metric
    return judge_landmarks(found.start, found.transform, *points, diagonal, fitted=fitted == "landmarks")


def _write_tiles(work: JudgeWork, sight: Sight) -> None:
    before, after = sight.tiles()
    name = np.array(_SIMILARITY_NAMES[sight.view.metric])
    write_arrays(work.files.tiles, before=before, after=after, error_um=sight.errors_um, similarity=name)
