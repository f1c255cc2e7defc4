"""From a manifest of aligned pairs to what training reads: checked, and chunked at one pixel size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import floor, log10
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.card import ModelCard, are_distinct
from comir_batch.core.config import ChunkConfig, ExecutionConfig, RunConfig
from comir_batch.core.errors import ManifestError, Problem
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Region
from comir_batch.core.manifest import Manifest, read_manifest
from comir_batch.core.verdict import Verdict
from comir_batch.execution.start import start_executor
from comir_batch.execution.stop import StopRequest
from comir_batch.io.mask_reader import read_mask
from comir_batch.pipeline.chunked import ChunkedSlide, chunked_slides
from comir_batch.pipeline.inspect import inspect_manifest
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.overview import lay_on
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.pipeline.working import working_level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.core.manifest import PairRow
    from comir_batch.core.slide import Photometric
    from comir_batch.pipeline.pair import Pair, Slide

_USUAL_MPP = 1.0
_ENOUGH_PIXELS = 512
Purpose = Literal["learn", "measure"]
_COARSEST = {"learn": 1.1, "measure": float(ModelCard.model_fields["mpp_tolerance"].default)}
"""By which factor slides may be coarser than what is asked for: as `working_level` has it, or as runs take them."""
_MOST_SIDE = 10**9
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """Two slides of the same tissue, aligned in µm and chunked.

    Attributes
    ----------
    name : str
        The pair_id.
    fixed, moving : ChunkedSlide
        In the order of the model's modalities.
    row : int
        Its line in the manifest.
    """

    name: str
    fixed: ChunkedSlide
    moving: ChunkedSlide
    row: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that training needs to know of its data.

    Attributes
    ----------
    pairs : tuple of TrainingPair
        In the order of the manifest.
    mpp : float
        Pixel size to train at, in µm.
    modalities : (str, str)
        Of the fixed and of the moving slides.
    channels : (int, int)
        Of each slide of a modality.
    photometrics : (str, str)
        ``brightfield`` where all slides of a modality are.
    """

    pairs: tuple[TrainingPair, ...]
    mpp: float
    modalities: tuple[str, str]
    channels: tuple[int, int]
    photometrics: tuple[Photometric, Photometric]


def prepare(
    manifest: Path,
    folder: Path,
    mpp: float,
    execution: ExecutionConfig,
    subscriber: Subscriber,
    *,
    stop: StopRequest | None = None,
    purpose: Purpose = "learn",
) -> Prepared:
    """Check a manifest of aligned pairs and write its slides, at one pixel size, as chunked Zarr.

    Parameters
    ----------
    manifest : Path
        The same format as for a run; its pairs must be aligned already.
    folder : Path
        A run directory that goes as far as the chunk stage; what is there already is not made again.
    mpp : float
        Pixel size in µm; 0 chooses it, see `choose_mpp`.
    execution : ExecutionConfig
        Where the work is done.
    subscriber : callable
        Hears of the progress.
    stop : StopRequest, optional
        Looked at between tasks.
    purpose : {"learn", "measure"}
        Whether a model shall learn from the pairs, or one that is there is measured on them.

    Raises
    ------
    ManifestError
        With all that is wrong with the manifest and its slides.
    StoppedError
        If the work was asked to stop; the same call goes on with it.
    """
    inspected = _inspected(read_manifest(manifest), purpose)
    chosen = mpp or choose_mpp([slide for pair in inspected for slide in (pair.fixed, pair.moving)])
    _require_pixels(inspected, chosen, purpose)
    config = RunConfig(model="none", chunk=ChunkConfig(mpp=chosen, max_side=_MOST_SIDE), execution=execution)
    request = RunRequest(manifest, folder, config, target="chunk", keep_work=True)
    summary = run(request, EventBus(subscriber), partial(start_executor, stop=stop or StopRequest()))
    errors = {result.pair_id: result.reasons for result in summary.results if result.verdict is Verdict.ERROR}
    if errors:
        raise ManifestError([_unreadable(pair, errors[pair.name]) for pair in inspected if pair.name in errors])
    layout = Layout(folder.resolve())
    pairs = [TrainingPair(p.name, *chunked_slides(p, config, layout), row=p.row.row) for p in inspected]
    problems = [each for pair, given in zip(pairs, inspected, strict=True) for each in _not_finite(pair, given)]
    if problems:
        raise ManifestError(problems)
    return _prepared(tuple(pairs), chosen)


def choose_mpp(slides: Sequence[Slide]) -> float:
    """Return the pixel size to train at: 1 µm, or the coarsest slide's own if that is more.

    Where the smallest slide would then have fewer than 512 pixels along its shorter side it is finer, as fine as that
    takes but never finer than the coarsest slide's own. Within that it is the coarsest working level of the slides, so
    that a run with the model interpolates as little as training does.
    """
    own = max((slide.info.mpp_x + slide.info.mpp_y) / 2 for slide in slides)
    smallest = min(min(slide.info.grid().size_um) for slide in slides)
    wanted = max(own, min(_USUAL_MPP, smallest / _ENOUGH_PIXELS))
    level = max(working_level(slide.info, wanted).mpp for slide in slides)
    return round(level, 3 - floor(log10(level)))


def _inspected(manifest: Manifest, purpose: Purpose) -> tuple[Pair, ...]:
    """Open the headers of a manifest and refuse it with all of its problems."""
    problems = [problem for row in manifest.rows for problem in _model_or_start(row, purpose)]
    rows = tuple(row.model_copy(update={"model": "", "initial_transform": None}) for row in manifest.rows)
    inspection = inspect_manifest(Manifest(manifest.path, rows, manifest.problems), "none")
    problems += [*inspection.problems, *_differences(inspection.pairs, purpose)]
    if problems:
        raise ManifestError(sorted(problems))
    return inspection.pairs


def _model_or_start(row: PairRow, purpose: Purpose) -> Iterator[Problem]:
    if row.model.lower() not in {"", "none"}:
        which = {"learn": "a model is to be trained", "measure": "no row chooses the model to measure"}[purpose]
        yield Problem(row.row, "model", f"names the model {row.model}, but {which}", "Leave it empty")
    if row.initial_transform is not None:
        what = {"learn": "training", "measure": "measuring a model"}[purpose]
        remedy = {"learn": "then train with --from-run RUN", "measure": "and name the aligned image"}[purpose]
        reason = f"a pair with an initial transform is not aligned, and {what} does not move it"
        yield Problem(row.row, "initial_transform", reason, f"Register with comir-batch run, {remedy}")


def _differences(pairs: Sequence[Pair], purpose: Purpose) -> Iterator[Problem]:
    """Compare each pair with the first."""
    for pair in pairs:
        if not are_distinct(pair.fixed.modality, pair.moving.modality):
            reason = f"a model cannot tell the modalities {pair.fixed.modality} and {pair.moving.modality} apart"
            yield Problem(pair.row.row, "moving_modality", reason, "Give the two modalities different names")
            continue
        for column in ("fixed", "moving"):
            yield from _difference(column, pairs[0], pair, purpose)


def _difference(column: str, reference: Pair, pair: Pair, purpose: Purpose) -> Iterator[Problem]:
    first, slide, row = getattr(reference, column), getattr(pair, column), pair.row.row
    if slide.modality != first.modality:
        reason = f"{slide.modality}, but {first.modality} in row {reference.row.row}"
        other = {"learn": "train on these rows by themselves", "measure": "leave the row out"}[purpose]
        remedy = f"A model is for one pair of modalities: correct the name, or {other}"
        yield Problem(row, f"{column}_modality", reason, remedy)
    have, wanted = (f"{len(s.info.channels)} channels ({', '.join(s.info.channels)})" for s in (slide, first))
    if len(slide.info.channels) != len(first.info.channels):
        reason = f"has {have}, the slide of row {reference.row.row} has {wanted}"
        yield Problem(row, column, reason, f"Choose a channel of it with {column}_channel, or leave the row out")


def _require_pixels(pairs: Sequence[Pair], mpp: float, purpose: Purpose) -> None:
    problems = []
    for pair in pairs:
        for column, slide in (("fixed", pair.fixed), ("moving", pair.moving)):
            own = (slide.info.mpp_x + slide.info.mpp_y) / 2
            if own / mpp > _COARSEST[purpose]:
                what = {"learn": "to train at", "measure": "of the model"}[purpose]
                remedy = {"learn": "Train at a coarser mpp (0 chooses it), or leave", "measure": "Leave"}[purpose]
                remedy += " the row out"
                reason = f"has {own:g} µm/px, coarser than the {mpp:g} µm/px {what}"
                problems.append(Problem(pair.row.row, column, reason, remedy))
    if problems:
        raise ManifestError(problems)


def _unreadable(pair: Pair, reasons: tuple[str, ...]) -> Problem:
    return Problem(pair.row.row, "-", f"pair {pair.name}: {'; '.join(reasons)}", "Mend the file, or leave the row out")


def _not_finite(pair: TrainingPair, given: Pair) -> Iterator[Problem]:
    """Look for NaN and infinity, inside the masks where there are any."""
    for column, slide, mask in (
        ("fixed", pair.fixed, given.row.fixed_mask),
        ("moving", pair.moving, given.row.moving_mask),
    ):
        count = _count_not_finite(slide, mask)
        if count:
            reason = f"pair {pair.name}: {slide.spec.path.name} has {count} pixels that are not finite at the "
            reason += f"working level of {slide.working.mpp:.3g} µm/px"
            yield Problem(pair.row, column, reason, f"Replace them, or mask them ({column}_mask)")


def _count_not_finite(slide: ChunkedSlide, mask: Path | None) -> int:
    array, grid = slide.array(), slide.grid
    if array.dtype.kind != "f":
        return 0
    wanted = None if mask is None else lay_on(read_mask(mask), slide.working.info, grid)
    count = 0
    for y in range(0, grid.height, _BLOCK):
        for x in range(0, grid.width, _BLOCK):
            region = Region(x, y, min(x + _BLOCK, grid.width), min(y + _BLOCK, grid.height))
            strange = ~np.isfinite(array.read(region).astype(np.float64)).all(axis=0)
            count += int((strange if wanted is None else strange & wanted[region.slices]).sum())
    return count


def _prepared(pairs: tuple[TrainingPair, ...], mpp: float) -> Prepared:
    first = pairs[0]
    fixed, moving = ([getattr(pair, side) for pair in pairs] for side in ("fixed", "moving"))
    return Prepared(
        pairs,
        mpp,
        (first.fixed.modality, first.moving.modality),
        (first.fixed.channels, first.moving.channels),
        (_photometric(fixed), _photometric(moving)),
    )


def _photometric(slides: Sequence[ChunkedSlide]) -> Photometric:
    return "brightfield" if all(slide.photometric == "brightfield" for slide in slides) else "dark"
