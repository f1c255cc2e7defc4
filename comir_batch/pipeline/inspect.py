"""Reads headers only: opens every file that the manifest names, chooses models, and collects what is wrong."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comir_batch.core.errors import ModelError, Problem, SlideError, UserError
from comir_batch.io.digest import slide_digest
from comir_batch.io.mask_reader import read_mask
from comir_batch.io.open import open_slide
from comir_batch.io.slide_reader import damage_as_error
from comir_batch.io.tables import read_points
from comir_batch.io.transform_files import read_transform
from comir_batch.pipeline.model_choice import choose_model
from comir_batch.pipeline.pair import Pair, Slide
from comir_batch.representation.store import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.geometry import Grid
    from comir_batch.core.manifest import Manifest, PairRow
    from comir_batch.core.slide import SlideInfo, SlideSpec

_HEADER_THREADS = 8
_CLAUSES = re.compile(r"[.;] ")
_SLIDE_REMEDY = "Correct the path, or leave the row out"
_READERS: dict[str, Callable[[Path, Grid], object]] = {
    "initial_transform": lambda path, _: read_transform(path),
    "fixed_mask": lambda path, _: read_mask(path),
    "moving_mask": lambda path, _: read_mask(path),
    "fixed_landmarks": read_points,
    "moving_landmarks": read_points,
}


@dataclass(frozen=True)
class Inspection:
    """Pairs that can be run, what is wrong with the other rows (those of the table itself included), their pair_ids."""

    pairs: tuple[Pair, ...]
    problems: tuple[Problem, ...]
    pair_ids: dict[int, str] = field(default_factory=dict)


def inspect_manifest(manifest: Manifest, default_model: str) -> Inspection:
    """Open the files of every row, headers only.

    Parameters
    ----------
    manifest : Manifest
        As read.
    default_model : str
        Model for the rows that name none; empty to let the modalities decide.
    """
    specs = list(dict.fromkeys(spec for row in manifest.rows for spec in (row.fixed, row.moving)))
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        headers = dict(zip(specs, pool.map(_headers, specs), strict=True))
    pairs: list[Pair] = []
    problems = list(manifest.problems)
    for row in manifest.rows:
        outcome = _inspect_row(row, headers, default_model, manifest.path.parent)
        if isinstance(outcome, Pair):
            pairs.append(outcome)
        else:
            problems += outcome
    return Inspection(tuple(pairs), tuple(sorted(problems)), manifest.pair_ids)


_Headers = tuple["SlideInfo", str] | UserError


def _headers(spec: SlideSpec) -> _Headers:
    try:
        with damage_as_error(spec.path, "the file"), open_slide(spec) as source:
            return source.info, slide_digest(spec.path, source.files[1:])
    except SlideError as error:
        return error
    except OSError as error:
        return SlideError(f"cannot read {spec.path}: {error.strerror}. See whether its disk is well, and try again")


def _inspect_row(
    row: PairRow, headers: dict[SlideSpec, _Headers], default_model: str, base: Path
) -> Pair | list[Problem]:
    problems: list[Problem] = []
    slides: dict[str, Slide] = {}
    for column, spec, modality in (
        ("fixed", row.fixed, row.fixed_modality),
        ("moving", row.moving, row.moving_modality),
    ):
        found = headers[spec]
        if isinstance(found, UserError):
            problems.append(Problem(row.row, column, *_reason_and_remedy(found)))
        else:
            slides[column] = Slide(spec, *found, modality)
    if problems:
        return problems
    digests, problems = _optional_files(row, {column: slide.info.grid() for column, slide in slides.items()})
    if problems:
        return problems
    fixed, moving = slides["fixed"], slides["moving"]
    try:
        asked = settled(row.model, base) or default_model
        model, sentence = choose_model(asked, (fixed.modality, fixed.info), (moving.modality, moving.info))
    except ModelError as error:
        return [Problem(row.row, "model", str(error), "Name another model or none, or leave the cell empty")]
    return Pair(row, fixed, moving, model, sentence, _assumed(row), digests)


def _optional_files(row: PairRow, grids: dict[str, Grid]) -> tuple[dict[str, str], list[Problem]]:
    """Read the small files that the row names, and return their digests."""
    digests: dict[str, str] = {}
    problems = []
    counts: dict[str, int] = {}
    for column, read in _READERS.items():
        path: Path | None = getattr(row, column)
        if path is None:
            continue
        try:
            content = read(path, grids["moving" if column.startswith("moving") else "fixed"])
            digests[column] = slide_digest(path)
        except UserError as error:
            problems.append(Problem(row.row, column, *_reason_and_remedy(error)))
        except OSError as error:
            problems.append(Problem(row.row, column, f"cannot read {path}: {error.strerror}", "Correct the path"))
        else:
            counts[column] = len(content) if column.endswith("landmarks") else 0  # type: ignore[arg-type]
    if counts.get("fixed_landmarks", 0) != counts.get("moving_landmarks", 0):
        numbers = f"{counts.get('fixed_landmarks', 0)} fixed and {counts.get('moving_landmarks', 0)} moving landmarks"
        problems.append(Problem(row.row, "moving_landmarks", numbers, "Give as many of both, in one order"))
    return digests, problems


def _reason_and_remedy(error: UserError) -> tuple[str, str]:
    """Split a message where, by the house's convention, it goes on to say what to do."""
    text = str(error).rstrip(".")
    breaks = [match.span() for match in _CLAUSES.finditer(text)]
    if not breaks:
        return text, _SLIDE_REMEDY
    end, start = breaks[-1]
    return text[:end], text[start : start + 1].upper() + text[start + 1 :]


def _assumed(row: PairRow) -> tuple[str, ...]:
    sentences = []
    for side, spec in (("fixed", row.fixed), ("moving", row.moving)):
        if spec.mpp is not None:
            sentences.append(f"The pixel size of the {side} slide, {spec.mpp:g} µm, is the manifest's.")
        if spec.photometric:
            sentences.append(f"That the {side} slide is {spec.photometric} is the manifest's word.")
        if spec.channel:
            sentences.append(f"Of the {side} slide only the channel {spec.channel} was used.")
        if spec.series:
            sentences.append(f"Of the {side} slide's file the image number {spec.series} was used.")
    return tuple(sentences)
