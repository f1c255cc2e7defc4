"""Aligned pairs from a run: its accepted pairs, less what the run itself gives reason to doubt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from scipy import ndimage

from comir_batch.core.config import RunConfig
from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.manifest import REQUIRED
from comir_batch.core.task import Resource
from comir_batch.core.verdict import Verdict
from comir_batch.io.mask_reader import read_mask
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline.by_hand import config_of, read_by_hand, standing
from comir_batch.pipeline.files import csv_text, read_arrays, read_json, write_bytes, write_text
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.job import Inference
from comir_batch.pipeline.layout import JudgeFiles, Layout
from comir_batch.pipeline.overview import make_overview
from comir_batch.pipeline.records import read_history
from comir_batch.pipeline.run import earlier_run, inspect_request
from comir_batch.pipeline.stages.judge import JudgeWork
from comir_batch.pipeline.views import reduction
from comir_batch.registration.held_out import TILE
from comir_batch.training.places import Mask

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import SlideSpec
    from comir_batch.core.transform import Composite
    from comir_batch.pipeline.job import Job
    from comir_batch.pipeline.overview import Overview
    from comir_batch.pipeline.pair import Pair

_COLUMNS = (
    *(*REQUIRED, "fixed_channel", "fixed_mpp", "fixed_series", "fixed_photometric", "moving_photometric"),
    *("fixed_mask", "moving_mask"),
)
_PRESENT = "a result of its present settings"
_DEVICES: tuple[Literal["cpu", "cuda"], ...] = ("cpu", "cuda")
_BENT_STEP = 4  # pixels of the overview: control points lie much further apart
_ANYWHERE_NEAR = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class _Trust:
    """What of a pair's fixed slide may be learnt from, and in words what may not."""

    mask: NDArray[np.bool_]
    sentence: str


def pairs_of_run(run: Path, folder: Path, only: Collection[str] = ()) -> tuple[Path, tuple[str, ...]]:
    """Write a manifest of a run's accepted pairs, aligned as the run found, with masks of what can be trusted.

    Left out are pairs that the run, stopped too early, has not come to with its present settings: what is published of
    them is an earlier one's. Of a pair, left out is what shows no tissue of both slides; where the transform folds or
    changes areas more than the run believes; and around held-out tiles that look no better than before registration and
    worse than most.

    Parameters
    ----------
    run : Path
        A run directory.
    folder : Path
        Takes pairs.csv and the masks.
    only : collection of str
        Pairs to take, those for review among them; empty for all that were accepted.

    Returns
    -------
    manifest : Path
        For `pairs.prepare`.
    notes : tuple of str
        A sentence on each pair: what was left out, or that it was.

    Raises
    ------
    RunDirectoryError
        If it is no run, has none of these pairs, they are neither accepted nor for review, or their aligned images are
        missing.
    ManifestError
        If the run's manifest or slides are not there any more.
    """
    earlier = earlier_run(run)
    config = RunConfig.model_validate(earlier.settings)
    layout = Layout(run.resolve())
    pairs = inspect_request(earlier.manifest, config, skip_bad_rows=True).pairs
    verdicts = _verdicts(pairs, config, layout)
    chosen = _chosen(pairs, verdicts, layout, only)
    _require_images(chosen, layout, earlier.manifest)
    unreached = [] if only else [name for name, verdict in verdicts.items() if verdict is None]
    notes = [f"pair {name}: left out; the run was stopped before it had {_PRESENT}" for name in unreached]
    rows, by_hand = [], read_by_hand(layout)
    for pair in chosen:
        trust = _trust(pair, config_of(config, by_hand.get(pair.name)), layout)
        notes.append(f"pair {pair.name}: {trust.sentence}")
        if trust.mask.any():
            rows.append(_row(pair, layout, _write_mask(folder / "masks" / f"{pair.name}.png", trust.mask)))
    if not rows:
        raise RunDirectoryError(f"{run} has no pair with a place to trust: {'; '.join(notes)}. Look at its report")
    return _write_manifest(folder / "pairs.csv", rows), tuple(notes)


def _chosen(
    pairs: Sequence[Pair], verdicts: Mapping[str, Verdict | None], layout: Layout, only: Collection[str]
) -> list[Pair]:
    unknown = sorted(set(only) - {pair.name for pair in pairs})
    if unknown:
        raise RunDirectoryError(f"{layout.root} has no pair {', '.join(unknown)}. Name pairs of its manifest")
    if only:
        _require_usable({name: verdicts[name] for name in only}, layout)
        return [pair for pair in pairs if pair.name in only]
    chosen = [pair for pair in pairs if verdicts[pair.name] is Verdict.ACCEPT]
    if not chosen:
        unreached = sum(verdict is None for verdict in verdicts.values())
        counts = f"none of its {len(pairs)} pairs is accepted"
        counts += f", and {unreached} are without {_PRESENT}, until it is resumed" if unreached else ""
        raise RunDirectoryError(f"{layout.root}: {counts}. Look at its report, and name pairs to take all the same")
    return chosen


def _require_usable(named: Mapping[str, Verdict | None], layout: Layout) -> None:
    """Refuse pairs that were named and are neither accepted nor for review, with their verdicts."""
    usable = {Verdict.ACCEPT, Verdict.REVIEW}
    unusable = {name: verdict for name, verdict in named.items() if verdict not in usable}
    if unusable:
        wrong = [
            f"{name} ({verdict.value if verdict else f'without {_PRESENT}'})" for name, verdict in unusable.items()
        ]
        raise RunDirectoryError(
            f"{layout.root}: {', '.join(wrong)} cannot be learnt from; what is named must be accepted or for review. "
            "Leave them out, or, if they are right after all, say so first with comir-batch review"
        )


def _verdicts(pairs: Sequence[Pair], config: RunConfig, layout: Layout) -> dict[str, Verdict | None]:
    """Return what a person decided on each pair, or else the judge's verdict; None where these settings gave none."""
    history, by_hand = read_history(layout.records), read_by_hand(layout)
    exports = (job for job in _possible_jobs(pairs, config, layout) if job.stage == "export")
    reached = {job.pairs[0] for job in exports if history.wrote_last(job, layout.root)}
    verdicts: dict[str, Verdict | None] = {}
    for pair in pairs:
        files = layout.pair(pair.name)
        verdict = Verdict(read_json(files.verdict)["verdict"]) if files.verdict.is_file() else None
        if verdict is not Verdict.ERROR:
            decision = standing(by_hand, pair.name, files.transform_json)
            verdict = None if pair.name not in reached else decision.verdict if decision else verdict
        verdicts[pair.name] = verdict
    return verdicts


def _require_images(pairs: Sequence[Pair], layout: Layout, manifest: Path) -> None:
    missing = [pair.name for pair in pairs if not layout.pair(pair.name).image_metadata.is_file()]
    if missing:
        command = f"comir-batch run {manifest} --out {layout.root}"
        raise RunDirectoryError(
            f"{layout.root}: aligned.ome.zarr of {', '.join(missing)} is missing. Make it again with {command}"
        )


def _trust(pair: Pair, config: RunConfig, layout: Layout) -> _Trust:
    fixed = _overview(pair.fixed.spec, pair.row.fixed_mask)
    moving = _overview(pair.moving.spec, pair.row.moving_mask)
    transform = read_transform_json(layout.pair(pair.name).transform_json)
    points, tissue = _points(fixed.grid), fixed.tissue.ravel()
    tiles = _bad_tiles(pair, config, layout)
    doubts = {
        "tissue of one slide only": ~_lands_on(Mask(moving.tissue, moving.grid), transform, points),
        "an incredible change of area": _bent(transform, fixed.grid, config.judge.max_area_change).at(points),
        "tiles that registration made no better": np.zeros_like(tissue) if tiles is None else tiles.at(points),
    }
    trusted = tissue & ~np.logical_or.reduce(list(doubts.values()))
    total = max(int(tissue.sum()), 1)
    sentence = f"{trusted.sum() / total:.0%} of the fixed slide's tissue is learnt from"
    left = [f"{name} {(doubt & tissue).sum() / total:.0%}" for name, doubt in doubts.items() if (doubt & tissue).any()]
    sentence += f"; left out: {', '.join(left)}" if left else ""
    sentence += "; the run does not hold its held-out tiles any more, so none are left out" if tiles is None else ""
    return _Trust(trusted.reshape(fixed.tissue.shape), sentence)


def _overview(spec: SlideSpec, mask: Path | None) -> Overview:
    with open_slide(spec) as source:
        return make_overview(source, None if mask is None else read_mask(mask))


def _points(grid: Grid) -> NDArray[np.float64]:
    y, x = np.indices(grid.shape).reshape(2, -1)
    return grid.to_um(np.stack([x, y], axis=1))


def _lands_on(tissue: Mask, transform: Composite, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    moved = transform.map(points)
    pixels, last = tissue.grid.to_pixels(moved), (tissue.grid.width - 0.5, tissue.grid.height - 0.5)
    return np.asarray(tissue.at(moved) & ((pixels >= -0.5) & (pixels <= last)).all(axis=1))


def _bent(transform: Composite, grid: Grid, largest: float) -> Mask:
    """Return where a transform folds, or changes areas by more than a factor either way."""
    coarse = grid.reduced(_BENT_STEP)
    change = transform.jacobian_determinant(_points(coarse), step_um=grid.mpp_x)
    upright = change * (np.sign(np.median(change)) or 1.0)
    return Mask(((upright < 1 / largest) | (upright > largest)).reshape(coarse.shape), coarse)


def _bad_tiles(pair: Pair, config: RunConfig, layout: Layout) -> Mask | None:
    """Return the neighbourhood of held-out tiles that got no better and are worse than most; None if there are none."""
    works = (job.work for job in _possible_jobs([pair], config, layout))
    for work in (work for work in works if isinstance(work, JudgeWork)):
        path = JudgeFiles(work.folder).tiles
        if path.is_file():
            arrays = read_arrays(path)
            before, after = arrays["before"], arrays["after"]
            seen = np.isfinite(before) & np.isfinite(after)
            usual = np.median(after[seen]) if seen.any() else 0.0
            bad = seen & (after <= before) & (after < usual)
            factor = reduction(work.fixed, work.moving, config.register_)
            grid = work.fixed.working.grid.reduced(factor).coarser(TILE, TILE, bad.shape[1], bad.shape[0])
            return Mask(ndimage.binary_dilation(bad, _ANYWHERE_NEAR), grid)
    return None


def _possible_jobs(pairs: Sequence[Pair], config: RunConfig, layout: Layout) -> Iterator[Job]:
    """Yield what the run's jobs may have been.

    Their names depend on where networks computed, and on which pairs a person had accepted by then.
    """
    by_hand = read_by_hand(layout)
    undecided = {name: replace(given, decision=None) for name, given in by_hand.items()}
    for device in _DEVICES:
        for given in (by_hand, undecided):
            yield from build_jobs(pairs, config, layout, Inference(device, Resource.CPU), given).values()


def _write_mask(path: Path, mask: NDArray[np.bool_]) -> Path:
    _, content = cv2.imencode(".png", mask.astype(np.uint8) * 255)
    write_bytes(path, content.tobytes())
    return path.resolve()


def _row(pair: Pair, layout: Layout, mask: Path) -> dict[str, object]:
    row = pair.row
    return {
        "pair_id": pair.name,
        "fixed": row.fixed.path,
        "moving": layout.pair(pair.name).aligned_zarr,
        "fixed_modality": row.fixed_modality,
        "moving_modality": row.moving_modality,
        "fixed_channel": row.fixed.channel,
        "fixed_mpp": "" if row.fixed.mpp is None else row.fixed.mpp,
        "fixed_series": row.fixed.series,
        "fixed_photometric": row.fixed.photometric,
        "moving_photometric": row.moving.photometric,
        "fixed_mask": mask,
        "moving_mask": mask,
    }


def _write_manifest(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    write_text(path, csv_text(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows]))
    return path
