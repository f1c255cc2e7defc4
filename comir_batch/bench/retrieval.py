"""How often a crop of one modality finds its field among many of the other, and its place in it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.bench import intervals
from comir_batch.bench.parts import chosen_parts
from comir_batch.bench.retrieval_methods import METHODS, USUAL, made
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.report import markdown
from comir_batch.representation.imagenet import ImageNetFeatures
from comir_batch.training.crops import Pose
from comir_batch.training.sampling import Sampler
from comir_batch.training.split import Part
from comir_batch.training.validate import crop_representation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model
    from comir_batch.training.sampling import Network, Place

    Image = NDArray[np.float32]

FIELD = 256
"""Pixels of a field's side, at the model's pixel size."""
_WHERE = 0.02  # of the query's width: what counts as located
_SHIFT = 0.125  # of a query's side, either way
COLUMNS = (
    *("direction", "query", "method", "top 1", "its interval", "top 5", "top 10"),
    *("located", "interval of it", "queries", "gallery"),
)


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
    methods : tuple of str
        Of `METHODS`.
    """

    model: Model
    pairs: Path
    out: Path
    execution: ExecutionConfig
    count: int = 30
    distractors: int = 200
    seed: int = 0
    whole: bool = False
    methods: tuple[str, ...] = USUAL


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
        """Return `COLUMNS` as text; located is a share of those whose field is first, of methods that tell a place.

        Intervals are exact ones of 95 %, as if queries did not overlap.
        """
        first, *tops = (f"{self.top(count):.3f}" for count in (1, 5, 10))
        count, right = len(self.ranks), sum(rank == 1 for rank in self.ranks)
        where = ("", "")
        if self.located:
            where = f"{np.mean(self.located):.3f}", intervals.told(sum(self.located), len(self.located))
        head = (self.direction, self.condition, self.method, first, intervals.told(right, count), *tops)
        return (*head, *where, str(count), f"{self.gallery:.0f}")


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    place: Place
    raw: Image
    comir: Image


def measure_retrieval(
    request: RetrievalRequest, stop: StopRequest, subscriber: Subscriber, say: Callable[[str], object]
) -> list[Row]:
    """Measure methods in both directions and write ``retrieval.json`` and ``retrieval.md``.

    The gallery of a query is its own field and the distractors that do not overlap it: those that do are right, too.

    Raises
    ------
    ManifestError, ModelError, ConfigError, SlideError
        If the pairs cannot be used.
    StoppedError
        If it was asked to stop; of what it did only the slides that were read are kept.
    """
    require_methods(request.methods)
    card = request.model.card
    pairs, parts, which = chosen_parts(request, request.execution, subscriber, stop)
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
    places, mine = shuffled(targets, others, np.random.default_rng(request.seed + 2))
    rows: list[Row] = []
    for searched in (0, 1):
        gallery, looked_for = unseen.networks[searched], unseen.networks[1 - searched]
        say(f"{looked_for.modality} in {gallery.modality}: {len(places)} fields are represented")
        fields = [_field(gallery, place, stop) for place in places]
        bench = _Bench(fields, mine, looked_for, gallery.modality, card.mpp, request.methods)
        for condition in CONDITIONS:
            measured = bench.measured(condition, np.random.default_rng(request.seed + 1), stop)
            say("\n".join("  ".join(row.cells()) for row in measured))
            rows += measured
    _write(request.out, rows, which)
    return rows


def shuffled(
    targets: Sequence[Place], others: Sequence[Place], rng: np.random.Generator
) -> tuple[list[Place], list[int]]:
    """Return all places in random order, and where the targets are: of equal scores the first counts as the best."""
    places = [*targets, *others]
    order = rng.permutation(len(places))
    return [places[k] for k in order], np.argsort(order)[: len(targets)].tolist()


def _field(network: Network, place: Place, stop: StopRequest) -> _Field:
    stop.check()
    raw = network.reader(place).read(place.upright, FIELD)
    return _Field(place, raw.mean(axis=0), crop_representation(network.representer, raw)[0])


def require_methods(names: Sequence[str]) -> None:
    """Refuse names that are not in `METHODS`, and packages that are missing, before anything is computed.

    Raises
    ------
    ConfigError
        With what is wrong.
    """
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ConfigError(f"there is no method {unknown[0]!r}; choose from: {'; '.join(METHODS)}")
    if any(name.endswith("ImageNet") for name in names):
        ImageNetFeatures()


class _Bench:
    """The gallery of one direction."""

    def __init__(
        self,
        fields: Sequence[_Field],
        targets: Sequence[int],
        network: Network,
        searched: str,
        mpp: float,
        methods: Sequence[str],
    ) -> None:
        self._fields, self._targets, self._network, self._mpp = fields, targets, network, mpp
        self._direction = f"{network.modality} in {searched}"
        images = {"raw": [field.raw for field in fields], "CoMIR": [field.comir for field in fields]}
        self._methods = made(methods, images)

    def measured(self, condition: Condition, rng: np.random.Generator, stop: StopRequest) -> list[Row]:
        """Return a row for each method that can look for queries of such a size."""
        ranks: dict[str, list[int]] = defaultdict(list)
        located: dict[str, list[bool]] = defaultdict(list)
        sizes = []
        side = round(condition.share * FIELD)
        for number in self._targets:
            pose, truth = self._pose(number, condition, rng)
            raw = self._network.reader(self._fields[number].place).read(pose, side)
            seen = {"raw": raw.mean(axis=0), "CoMIR": crop_representation(self._network.representer, raw)[0]}
            gallery = self._gallery(number)
            sizes.append(len(gallery))
            for name, method in self._methods.items():
                stop.check()
                found = method.find(seen[name.partition(",")[0]], gallery)
                if found is None:
                    continue
                ranks[name].append(found.order.index(number) + 1 if number in found.order else 0)
                if found.middle is not None and found.order[:1] == [number]:
                    located[name].append(math.dist(found.middle, truth) <= _WHERE * side)
        gallery_size = float(np.mean(sizes))
        return [
            Row(self._direction, condition.name, name, tuple(each), tuple(located[name]), gallery_size)
            for name, each in ranks.items()
        ]

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

        others = {k for k, field in enumerate(self._fields) if k not in self._targets and apart(field.place)}
        return sorted(others | {number})


def _write(out: Path, rows: Sequence[Row], which: str) -> None:
    write_json(out / "retrieval.json", {"measured": which, "rows": [row._asdict() for row in rows]})
    write_text(out / "retrieval.md", f"{which}\n\n{markdown.table(COLUMNS, (row.cells() for row in rows))}\n")
