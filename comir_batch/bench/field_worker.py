"""The registration benchmark's tasks: a few fields, drawn and registered by every method, on a worker."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cv2

from comir_batch.bench.conditions import conditions, draw_sample
from comir_batch.bench.methods import Asked, measure
from comir_batch.bench.ours import VIEWS
from comir_batch.bench.sample import Readers
from comir_batch.bench.verdicts import recorded
from comir_batch.core.card import Input
from comir_batch.core.errors import SlideError, TaskError
from comir_batch.representation.weights import load
from comir_batch.training.crops import PairReader
from comir_batch.training.validate import crop_representation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from comir_batch.bench.methods import Measured
    from comir_batch.bench.sample import Sample
    from comir_batch.core.card import ModalityCard
    from comir_batch.core.config import RegisterConfig
    from comir_batch.representation.store import Model
    from comir_batch.training.split import Part

_REVISION = 8  # raised when fields or others' methods change
_OUR_REVISIONS = {"raw": 11, "comir": 10, "both": 12, "mi": 10, "mind": 10}
"""Of the methods that depend on the settings of registration; raised when what settings make of a field changes."""
_GREY = Input(reduction="mean", low=1.0, high=99.5)  # what a run compares as raw images


@dataclass(frozen=True, slots=True)
class Setup:
    """What fields are drawn from and registered with.

    Attributes
    ----------
    parts : tuple of Part
        Of aligned pairs; what the model has not seen.
    model : Model
        Knows both modalities.
    side : int
        Of the fields, in pixels of the model's pixel size.
    seed : int
        Of all that is drawn by chance.
    config : RegisterConfig
        Of our pipeline.
    """

    parts: tuple[Part, ...]
    model: Model
    side: int
    seed: int
    config: RegisterConfig

    @property
    def modalities(self) -> tuple[ModalityCard, ModalityCard]:
        """Cards of the fixed and of the moving slides' networks."""
        pair = self.parts[0].pair
        return self.model.card.modality(pair.fixed.modality), self.model.card.modality(pair.moving.modality)

    @property
    def description(self) -> dict[str, Any]:
        """All that fields and the results of others' methods depend on, in JSON's own types."""
        parts = [[p.pair.name, p.pair.fixed.digest, p.pair.moving.digest, *map(str, p.box)] for p in self.parts]
        return {
            "revision": _REVISION,
            "model": {"name": self.model.card.name, "weights_sha256": self.model.card.weights_sha256},
            "mpp": self.model.card.mpp,
            "parts": parts,
            "side": self.side,
            "seed": self.seed,
        }

    @property
    def ours(self) -> dict[str, Any]:
        """What the results of our methods depend on besides: each one's revision, and settings not the default ones."""
        return {"revisions": _OUR_REVISIONS, "register": self.config.model_dump(mode="json", exclude_defaults=True)}

    @property
    def digest(self) -> str:
        """Stands for both."""
        return digest_of({**self.description, "ours": self.ours})


def digest_of(description: Mapping[str, Any]) -> str:
    """Return what stands for a description in JSON's own types."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """A task's fields, numbers of one condition, the methods to measure on them, and whether verdicts are wanted."""

    setup: Setup
    condition: str
    numbers: tuple[int, ...]
    methods: tuple[str, ...]
    verdicts: bool = True


def measure_batch(batch: Batch) -> list[dict[str, Any]]:
    """Return a row for each field: condition, number, and ``[error_px or None, CPU seconds]`` by method.

    ``evidence`` holds what the verdict on each of our methods rests on, None where there is no transform; it is missing
    where no verdicts are wanted. ``unbent_px`` is the error of the truth without its deformation, if any. A field
    without a place in the parts has a ``note`` instead of all that.
    """
    workplace = _workplace(batch.setup)
    return [workplace.row(batch, number) for number in batch.numbers]


_workplaces: dict[str, _Workplace] = {}


def _workplace(setup: Setup) -> _Workplace:
    """Return what this process has open for a setup; networks and slides' ranges are loaded once."""
    if setup.digest not in _workplaces:
        _workplaces.clear()
        _workplaces[setup.digest] = _Workplace(setup)
    return _workplaces[setup.digest]


class _Workplace:
    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)
        self._setup = setup
        self._conditions = {condition.name: condition for condition in conditions(setup.side)}
        self._readers = list(_readers(setup))
        if not self._readers:
            raise TaskError("no part of the slides to draw fields from has tissue; give other pairs or another region")
        fixed, moving = (load(setup.model, card.modality, "cpu") for card in setup.modalities)
        self._represent = partial(crop_representation, fixed), partial(crop_representation, moving)

    def row(self, batch: Batch, number: int) -> dict[str, Any]:
        condition = self._conditions[batch.condition]
        order = list(self._conditions).index(condition.name)
        head: dict[str, Any] = {"condition": condition.name, "number": number}
        try:
            sample = draw_sample(self._readers, condition, number, (self._setup.seed, order))
        except SlideError as error:
            return {**head, "note": str(error)}
        found = self._measured(sample, batch, deformable=condition.kind == "bent")
        row = {
            **head,
            "unbent_px": sample.unbent_px,
            "methods": {method: [measured.error_px, measured.seconds] for method, measured in found.items()},
        }
        if batch.verdicts:
            row["evidence"] = {method: recorded(found[method].evidence) for method in found if method in VIEWS}
        return row

    def _measured(self, sample: Sample, batch: Batch, *, deformable: bool) -> dict[str, Measured]:
        card, config = self._setup.model.card, self._setup.config
        with TemporaryDirectory(prefix="comir-batch-bench-") as name:
            asked = Asked(batch.methods, deformable=deformable, verdicts=batch.verdicts)
            return measure(sample, asked, self._represent, config, Path(name), (card.name, card.slides))


def _readers(setup: Setup) -> Iterator[Readers]:
    first, second = setup.modalities
    grey = tuple(card.model_copy(update={"input": _GREY}) for card in (first, second))
    for part in setup.parts:
        try:
            yield Readers(
                PairReader(part, (first, second), setup.model.card.mpp, whole_ranges=True),
                PairReader(part, (grey[0], grey[1]), setup.model.card.mpp, whole_ranges=True),
                part.pair.name,
            )
        except SlideError:  # no tissue in this part
            continue
