"""judge: the evidence for and against a transform, and the verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.task import Task
from comir_batch.core.transform import BSpline, Composite
from comir_batch.io.tables import read_points
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline.files import read_arrays, read_json, write_arrays, write_json
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import JudgeFiles, RegisterFiles
from comir_batch.pipeline.start import start_transform
from comir_batch.pipeline.views import Side, load_views, reduction
from comir_batch.quality.plausibility import folding, overlap, shape, tissue_points
from comir_batch.quality.points import disagreement, judge_landmarks
from comir_batch.quality.similarity import Layer, compare, tile_similarity
from comir_batch.quality.verdict import Evidence, judge
from comir_batch.registration.held_out import TILE
from comir_batch.registration.memory import registration_memory_mb
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import JudgeConfig, RegisterConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.quality.points import Landmarks
    from comir_batch.quality.similarity import Similarity
    from comir_batch.registration.images import RegistrationImage, View

_INSIDE = 0.99
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
        pixels = max(side.working.grid.width * side.working.grid.height for side in (self.fixed, self.moving))
        factor = reduction(self.fixed, self.moving, self.registration.max_memory_gb)
        return registration_memory_mb(pixels // factor**2)

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """One task."""
        return [Task(f"{key}-pair", judge_pair, self, memory_mb=self.memory_mb)] if number == 0 else None

    def estimate(self) -> Estimate:
        """Return what it will take."""
        return Estimate(1, self.memory_mb)


def judge_pair(work: JudgeWork) -> dict[str, Any]:
    """Gather the evidence, judge, and write the verdict; runs on a worker."""
    register = RegisterFiles(work.register)
    found, start = read_transform_json(register.transform), _start(work)
    held_out = read_arrays(register.held_out)["held_out"]
    factor = reduction(work.fixed, work.moving, work.registration.max_memory_gb)
    views = {view.name: view for view in load_views(work.fixed, work.moving, factor)}
    sights: dict[str, _Sight] = {name: _Sight(view, held_out, start, found) for name, view in views.items()}
    summary = read_json(register.summary)
    chosen = summary["view"]
    evidence = _evidence(work, summary, sights, found)
    judgement = judge(evidence, work.config)
    _write_tiles(work, sights[chosen])
    reasons = [*judgement.reasons, work.model_choice]
    content = {"verdict": judgement.verdict.value, "reasons": reasons, "metrics": judgement.metrics}
    write_json(work.files.verdict, content)
    return {"verdict": judgement.verdict.value}


class _Sight:
    """One view of the pair on the fixed grid: the fixed image, and the moving one before and after registration."""

    def __init__(self, view: View, held_out: NDArray[np.bool_], start: Composite, found: Composite) -> None:
        self.view = view
        self.fixed = Layer(view.fixed.pixels, view.fixed.mask & held_out)
        self.before, self.after = (_layer(view.moving, transform, view.fixed.grid) for transform in (start, found))

    def similarity(self, seed: int) -> Similarity:
        """Compare on the tiles that no fit saw."""
        return compare(self.fixed, self.before, self.after, tile=TILE, metric=self.view.metric, seed=seed)

    def tiles(self, moving: Layer) -> NDArray[np.float64]:
        """Return the similarity of each held-out tile, NaN elsewhere."""
        values, weights = tile_similarity(self.fixed, moving, tile=TILE, metric=self.view.metric)
        return np.where(weights > 0, values, np.nan)


def _start(work: JudgeWork) -> Composite:
    return start_transform(work.fixed.working.grid, work.moving.working.grid, work.initial)


def _layer(image: RegistrationImage, transform: Composite, grid: Grid) -> Layer:
    """Resample an image and its mask on the fixed grid; only pixels made of tissue alone count."""
    stack = np.stack([image.pixels, image.mask.astype(np.float32)])
    pixels, mask = warp_array(stack, image.grid, transform, grid).astype(np.float32)
    return Layer(pixels, mask > _INSIDE)


def _evidence(work: JudgeWork, summary: dict[str, Any], sights: dict[str, _Sight], found: Composite) -> Evidence:
    raw = sights["raw"].view
    points = tissue_points(raw.fixed.mask, raw.fixed.grid)
    seen = {name: sight.similarity(work.registration.seed) for name, sight in sights.items()}
    name, slides = work.model or ("", 0)
    *failed, last = summary["attempts"]
    return Evidence(
        registered_from="comir" if summary["view"] == "comir" else "raw",
        shape=shape(found, points),
        folding=folding(found, points, step_um=raw.fixed.grid.mpp_x),
        overlap=overlap(found, (raw.fixed.mask, raw.fixed.grid), (raw.moving.mask, raw.moving.grid)),
        raw=seen["raw"],
        comir=seen.get("comir"),
        model=name,
        model_slides=slides,
        disagreement_um=_disagreement(RegisterFiles(work.register), points),
        failed=tuple(attempt["error"] for attempt in failed),
        fitted=last["name"],
        landmarks=_landmarks(work, found),
    )


def _disagreement(files: RegisterFiles, points: NDArray[np.float64]) -> float | None:
    """Return how far apart both views' affine fits are; None where only one view found anything."""
    if not files.other.exists():
        return None
    found = read_transform_json(files.transform)
    # The other view stops at its affine fit, so the found B-spline, the last part, is left out of the comparison.
    parts = found.parts[:-1] if isinstance(found.parts[-1], BSpline) else found.parts
    affine = Composite(parts)
    return disagreement(affine, read_transform_json(files.other), points)


def _landmarks(work: JudgeWork, found: Composite) -> Landmarks | None:
    if work.landmarks[0] is None or work.landmarks[1] is None:
        return None
    grid = work.moving.working.info.grid()
    fixed, moving = read_points(work.landmarks[0], work.fixed.working.info.grid()), read_points(work.landmarks[1], grid)
    return judge_landmarks(_start(work), found, fixed, moving, math.hypot(*grid.size_um))


def _write_tiles(work: JudgeWork, sight: _Sight) -> None:
    name = np.array(_SIMILARITY_NAMES[sight.view.metric])
    write_arrays(work.files.tiles, before=sight.tiles(sight.before), after=sight.tiles(sight.after), similarity=name)
