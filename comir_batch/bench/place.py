"""Where in whole slides of one modality fields of the other are found, through an index, as `query` finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.bench import intervals
from comir_batch.bench.cut_out import save_field, save_table
from comir_batch.bench.parts import chosen_parts
from comir_batch.core.manifest import read_manifest
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.pipeline.representing import SlideRow
from comir_batch.report import markdown
from comir_batch.retrieval.answers import QueryRequest, answer
from comir_batch.retrieval.find import VERIFIED
from comir_batch.retrieval.index import IndexRequest, build_index
from comir_batch.retrieval.tables import read_slides
from comir_batch.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.slide import SlideSpec
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.find import LookUp
    from comir_batch.training.sampling import Network, Place

WHERE = 0.02
"""Share of a field's width that its middle may be found away."""
COLUMNS = (
    *("direction", "side (px)", "fields", "slide right", "located", "its interval"),
    *("median error (px)", "margins"),
)


@dataclass(frozen=True, slots=True)
class PlaceRequest:
    """What to measure.

    Attributes
    ----------
    model : Model
        Knows both modalities of the pairs.
    pairs : Path
        Manifest of aligned pairs.
    out : Path
        Takes the fields, an index of each modality, and the figures.
    count : int
        Fields of each size and direction.
    sides : tuple of int
        Of the fields, in pixels of the model's pixel size.
    whole : bool
        Take fields of all tissue, learnt from or not.
    look_up : {"auto", "all", "shortlist"}
        See `retrieval.find.Finder`.
    """

    model: Model
    pairs: Path
    out: Path
    config: RunConfig
    count: int = 30
    sides: tuple[int, ...] = (256, 128)
    seed: int = 0
    whole: bool = False
    look_up: LookUp = "auto"


class Found(NamedTuple):
    """The best place of a field: in its own slide or not, how far from where it is from, in pixels, and the margin.

    The distance is None where there is no place.
    """

    right: bool
    error_px: float | None
    margin: float


class Row(NamedTuple):
    """What became of the fields of one size and direction."""

    direction: str
    side: int
    found: tuple[Found, ...]

    def is_located(self, found: Found) -> bool:
        """Tell whether a field's place is its own."""
        return found.right and found.error_px is not None and found.error_px <= WHERE * self.side

    def cells(self) -> tuple[str, ...]:
        """Return `COLUMNS` as text; margins are the lowest of the located ones and the highest of the others."""
        located = [each for each in self.found if self.is_located(each)]
        others = [each for each in self.found if not self.is_located(each)]
        error = f"{np.median([each.error_px or 0.0 for each in located]):.2f}" if located else ""
        margins = [
            *([f"{min(each.margin for each in located):.2f} or more"] if located else []),
            *([f"others {max(each.margin for each in others):.2f} at most"] if others else []),
        ]
        right = sum(each.right for each in self.found)
        share = intervals.told(len(located), len(self.found))
        counts = (str(len(self.found)), str(right), str(len(located)), share)
        return (self.direction, str(self.side), *counts, error, ", ".join(margins))


def measure_places(
    request: PlaceRequest, stop: StopRequest, subscriber: Subscriber, say: Callable[[str], object]
) -> list[Row]:
    """Index the slides of each modality, look for fields of the other, and write ``place.json`` and ``place.md``.

    Fields lie at any angle, half of them mirrored, wholly in the part that the model has not learnt from; what they are
    looked for in are whole slides.

    Raises
    ------
    ManifestError, ModelError, ConfigError, SlideError
        If the pairs cannot be used.
    StoppedError
        If it was asked to stop.
    """
    _, parts, which = chosen_parts(request, request.config.execution, subscriber, stop)
    sampler = Sampler(request.model, parts, "cpu")
    rows = []
    for looked_for, searched in zip(sampler.networks, reversed(sampler.networks), strict=True):
        index = _indexed(request, searched, subscriber, stop)
        for side in request.sides:
            places = sampler.turned(request.count, np.random.default_rng(request.seed), side)
            found = _found(request, index, places, looked_for, side, stop)
            rows.append(Row(f"{looked_for.modality} in {searched.modality}", side, tuple(found)))
            say("  ".join(rows[-1].cells()))
    _write(request.out, rows, which)
    return rows


def _slides(request: PlaceRequest, *, moving: bool) -> dict[SlideSpec, SlideRow]:
    """Return the fixed or the moving slides of the pairs, each once, by how they are opened."""
    slides: dict[SlideSpec, SlideRow] = {}
    for pair in read_manifest(request.pairs).rows:
        spec, modality, mask = (
            (pair.moving, pair.moving_modality, pair.moving_mask)
            if moving
            else (pair.fixed, pair.fixed_modality, pair.fixed_mask)
        )
        slides.setdefault(spec, SlideRow(pair.row, pair.pair_id, spec, modality, mask))
    return slides


def _indexed(request: PlaceRequest, searched: Network, subscriber: Subscriber, stop: StopRequest) -> Path:
    folder = request.out / f"index-{searched.modality}"
    rows = tuple(_slides(request, moving=searched.moving).values())
    build_index(IndexRequest(request.pairs, rows, request.model, folder, request.config), subscriber, stop)
    return folder


def _found(
    request: PlaceRequest, index: Path, places: Sequence[Place], looked_for: Network, side: int, stop: StopRequest
) -> Iterator[Found]:
    """Cut fields, look for them, and yield what was found."""
    names = _names(request, moving=not looked_for.moving)
    folder, by_name = f"{looked_for.modality}-{side}", {f"field-{n:03}": place for n, place in enumerate(places)}
    for name, place in by_name.items():
        save_field(looked_for.reader(place), place.pose, side, request.out / folder / f"{name}.ome.tif")
    table = save_table(request.out / f"{folder}.csv", folder, looked_for.modality, by_name)
    for each in answer(
        QueryRequest(index, read_slides(table), 1, VERIFIED, "cpu", request.look_up), lambda _text: None
    ):
        stop.check()
        if not each.matches:
            yield Found(right=False, error_px=None, margin=each.margin)
            continue
        pose, best = by_name[each.name].pose, each.matches[0]
        right = best.slide.name == names[by_name[each.name].part.pair.name]
        away_um = math.dist(best.middle(each.grid), (pose.x, pose.y))
        yield Found(right, away_um / request.model.card.mpp, each.margin)


def _names(request: PlaceRequest, *, moving: bool) -> dict[str, str]:
    """Return the name in the index of each pair's fixed or moving slide."""
    slides = _slides(request, moving=moving)
    rows = read_manifest(request.pairs).rows
    return {pair.pair_id: slides[pair.moving if moving else pair.fixed].name for pair in rows}


def _write(out: Path, rows: Sequence[Row], which: str) -> None:
    write_json(out / "place.json", {"measured": which, "rows": [row._asdict() for row in rows]})
    write_text(out / "place.md", f"{which}\n\n{markdown.table(COLUMNS, (row.cells() for row in rows))}\n")
