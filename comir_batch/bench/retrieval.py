"""How often a crop of one modality finds its field among many of the other, and its place in it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.bench.visual_words import Ranker
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.retrieval.cells import Cells
from comir_batch.retrieval.lookup import look_up
from comir_batch.retrieval.place import place
from comir_batch.retrieval.templates import Query
from comir_batch.training.crops import Pose
from comir_batch.training.pairs import prepare
from comir_batch.training.sampling import Sampler
from comir_batch.training.split import Part
from comir_batch.training.unseen import unseen_parts, whole_parts
from comir_batch.training.validate import crop_representation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.geometry import Region
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.lookup import Hit
    from comir_batch.retrieval.place import Placed
    from comir_batch.training.sampling import Network, Place

    Image = NDArray[np.float32]

FIELD = 256
"""Pixels of a field's side, at the model's pixel size."""
_VERIFIED, _LOOKED_UP = 12, 30
_WHERE = 0.02  # of the query's width: what counts as located
_SHIFT = 0.125  # of a query's side, either way
METHODS = ("raw, words", "CoMIR, words", "raw, cells", "CoMIR, cells", "CoMIR, cells, verified")
COLUMNS = ("direction", "query", "method", "top 1", "top 5", "top 10", "located", "queries", "gallery")


class Condition(NamedTuple):
    """What is asked: the share of a field's side that the query has, and whether it is turned, mirrored and shifted."""

    share: float
    moved: bool

    @property
    def name(self) -> str:
        """In words."""
        return f"{round(self.share * FIELD)} px, {'any pose' if self.moved else 'aligned'}"


CONDITIONS = (Condition(1.0, moved=False), Condition(1.0, moved=True), Condition(0.5, moved=True))


@dataclass(frozen=True, slots=True)
class RetrievalRequest:
    """What to measure.

    Attributes
    ----------
    model : Model
        Knows both modalities of the pairs.
    pairs : Path
        Manifest of aligned pairs.
    out : Path
        Takes the slides as Zarr, and the table.
    count, distractors : int
        Fields of unseen tissue that are looked for, in each direction, and other fields, of anywhere else.
    whole : bool
        Look for fields of all tissue, learnt from or not.
    """

    model: Model
    pairs: Path
    out: Path
    execution: ExecutionConfig
    count: int = 30
    distractors: int = 200
    seed: int = 0
    whole: bool = False


class Row(NamedTuple):
    """Ranks of the right field, from 1, and whether it was located, over all queries of one kind; 0 is not found."""

    direction: str
    condition: str
    method: str
    ranks: tuple[int, ...]
    located: tuple[bool, ...]
    gallery: float

    def top(self, count: int) -> float:
        """Return the share of queries whose field is among the first so many."""
        return float(np.mean([0 < rank <= count for rank in self.ranks]))

    def cells(self) -> tuple[str, ...]:
        """Return `COLUMNS` as text; located is a share of those whose field is first, of methods that tell a place."""
        tops = (f"{self.top(count):.3f}" for count in (1, 5, 10))
        where = f"{np.mean(self.located):.3f}" if self.located else ""
        return (self.direction, self.condition, self.method, *tops, where, str(len(self.ranks)), f"{self.gallery:.0f}")


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    place: Place
    raw: Image
    comir: Image


def measure_retrieval(
    request: RetrievalRequest, stop: StopRequest, subscriber: Subscriber, say: Callable[[str], object]
) -> list[Row]:
    """Measure all methods in both directions and write ``retrieval.json`` and ``retrieval.md``.

    The gallery of a query is its own field and the distractors that do not overlap it: those that do are right, too.

    Raises
    ------
    ManifestError, ModelError, ConfigError, SlideError
        If the pairs cannot be used.
    StoppedError
        If it was asked to stop; of what it did only the slides that were read are kept.
    """
    card = request.model.card
    pairs = prepare(request.pairs, request.out / "data", card.mpp, request.execution, subscriber, stop=stop).pairs
    parts, which = whole_parts(card, pairs) if request.whole else unseen_parts(card, pairs)
    device = request.execution.device
    unseen = Sampler(request.model, parts, device)
    anywhere = Sampler(request.model, [Part(pair) for pair in pairs], device)
    rng = np.random.default_rng(request.seed)
    side, targets = unseen.draw(request.count, rng, window=True)
    _, others = anywhere.draw(request.distractors, rng, window=True)
    if side != FIELD:
        raise ConfigError(
            f"the slides' parts have no room for fields of {FIELD} pixels; give larger slides, or --whole"
        )
    rows: list[Row] = []
    for searched in (0, 1):
        gallery, looked_for = unseen.networks[searched], unseen.networks[1 - searched]
        say(f"{looked_for.modality} in {gallery.modality}: {len(targets) + len(others)} fields are represented")
        fields = [_field(gallery, place, stop) for place in (*targets, *others)]
        bench = _Bench(fields, len(targets), looked_for, f"{looked_for.modality} in {gallery.modality}", card.mpp)
        for condition in CONDITIONS:
            rows += bench.measured(condition, np.random.default_rng(request.seed + 1), stop)
            say("\n".join("  ".join(row.cells()) for row in rows[-len(METHODS) :]))
    _write(request.out, rows, which)
    return rows


def _field(network: Network, place: Place, stop: StopRequest) -> _Field:
    stop.check()
    raw = network.reader(place).read(place.upright, FIELD)
    return _Field(place, raw.mean(axis=0), crop_representation(network.representer, raw)[0])


class _Bench:
    """The gallery of one direction."""

    def __init__(self, fields: Sequence[_Field], targets: int, network: Network, direction: str, mpp: float) -> None:
        self._fields, self._targets, self._network = fields, targets, network
        self._direction, self._mpp = direction, mpp
        everywhere = np.ones((FIELD, FIELD), bool)
        self._cells = {
            "raw": [Cells.of(field.raw, everywhere) for field in fields],
            "CoMIR": [Cells.of(field.comir, everywhere) for field in fields],
        }
        self._words = {
            "raw": Ranker([field.raw for field in fields]),
            "CoMIR": Ranker([field.comir for field in fields]),
        }

    def measured(self, condition: Condition, rng: np.random.Generator, stop: StopRequest) -> Iterator[Row]:
        """Yield a row for each method."""
        ranks: dict[str, list[int]] = defaultdict(list)
        located: dict[str, list[bool]] = defaultdict(list)
        sizes = []
        for number in range(self._targets):
            stop.check()
            pose, truth = self._pose(number, condition, rng)
            side = round(condition.share * FIELD)
            raw = self._network.reader(self._fields[number].place).read(pose, side)
            seen = {"raw": raw.mean(axis=0), "CoMIR": crop_representation(self._network.representer, raw)[0]}
            gallery = self._gallery(number)
            sizes.append(len(gallery))
            for name, found, apart in self._answers(seen, gallery, truth):
                ranks[name].append(found.index(number) + 1 if number in found else 0)
                if apart is not None and found[:1] == [number]:
                    located[name].append(apart <= _WHERE * side)
        for name in METHODS:
            yield Row(
                self._direction, condition.name, name, tuple(ranks[name]), tuple(located[name]), float(np.mean(sizes))
            )

    def _pose(self, number: int, condition: Condition, rng: np.random.Generator) -> tuple[Pose, NDArray[np.float64]]:
        """Return where the query lies on its slide, and its middle in pixels of its field."""
        upright, side = self._fields[number].place.upright, condition.share * FIELD
        room = (FIELD - side) / 2 + (_SHIFT * side if condition.moved else 0)
        shift = rng.uniform(-room, room, 2)
        turn = (float(rng.uniform(-math.pi, math.pi)), bool(rng.integers(2))) if condition.moved else (0.0, False)
        x, y = np.array([upright.x, upright.y]) + shift * self._mpp
        return Pose(float(x), float(y), *turn), shift + (FIELD - 1) / 2

    def _gallery(self, number: int) -> list[int]:
        """Return the numbers of a target and of the distractors that do not overlap it."""
        mine = self._fields[number].place
        least = math.sqrt(2) * FIELD * self._mpp

        def apart(other: Place) -> bool:
            same = other.part.pair.name == mine.part.pair.name
            return not same or math.dist((mine.pose.x, mine.pose.y), (other.pose.x, other.pose.y)) > least

        others = range(self._targets, len(self._fields))
        return [number, *(k for k in others if apart(self._fields[k].place))]

    def _answers(
        self, seen: dict[str, Image], gallery: Sequence[int], truth: NDArray[np.float64]
    ) -> Iterator[tuple[str, list[int], float | None]]:
        """Yield each method's name, its ranking, and how many pixels its best place lies from the truth."""
        kept = set(gallery)
        for kind, image in seen.items():
            yield f"{kind}, words", [k for k in self._words[kind].rank(image).tolist() if k in kept], None
            query = Query(image, np.ones(image.shape, bool))
            hits = look_up(query, [self._cells[kind][k] for k in gallery], _LOOKED_UP)
            apart = math.dist((hits[0].x, hits[0].y), truth) if hits else None
            yield f"{kind}, cells", _in_order(gallery[hit.slide] for hit in hits), apart
            if kind == "CoMIR":
                checked = [(k, placed) for k, placed in self._verified(query, gallery, hits) if placed is not None]
                checked.sort(key=lambda pair: -pair[1].score)
                middle = [(side - 1) / 2 for side in image.shape[::-1]]
                where = math.dist(checked[0][1].transform.map([middle])[0], truth) if checked else None
                order = [*(k for k, _ in checked), *(gallery[hit.slide] for hit in hits[_VERIFIED:])]
                yield f"{kind}, cells, verified", _in_order(order), where

    def _verified(
        self, query: Query, gallery: Sequence[int], hits: Sequence[Hit]
    ) -> Iterator[tuple[int, Placed | None]]:
        for hit in hits[:_VERIFIED]:
            image = self._fields[gallery[hit.slide]].comir

            def read(region: Region, image: Image = image) -> tuple[Image, NDArray[np.bool_]]:
                return image[region.slices], np.ones(region.shape, bool)

            yield gallery[hit.slide], place(query, hit, read, (FIELD, FIELD))


def _in_order(numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def _write(out: Path, rows: Sequence[Row], which: str) -> None:
    write_json(out / "retrieval.json", {"measured": which, "rows": [row._asdict() for row in rows]})
    lines = (COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    write_text(out / "retrieval.md", f"{which}\n\n{table}\n")
