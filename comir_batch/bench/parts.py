"""The parts of aligned pairs that a benchmark of retrieval draws fields from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from comir_batch.training.pairs import prepare
from comir_batch.training.unseen import unseen_parts, whole_parts

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model
    from comir_batch.training.pairs import TrainingPair
    from comir_batch.training.split import Part


class _Asked(Protocol):
    """What is measured: a model, on a manifest of aligned pairs, in a folder, on all tissue or on unseen alone."""

    @property
    def model(self) -> Model: ...
    @property
    def pairs(self) -> Path: ...
    @property
    def out(self) -> Path: ...
    @property
    def whole(self) -> bool: ...


class Chosen(NamedTuple):
    """Pairs, chunked in ``data`` of the folder, their parts to measure on, and a sentence that says which these are."""

    pairs: tuple[TrainingPair, ...]
    parts: tuple[Part, ...]
    which: str


def chosen_parts(asked: _Asked, execution: ExecutionConfig, subscriber: Subscriber, stop: StopRequest) -> Chosen:
    """Prepare pairs and choose their parts.

    Raises
    ------
    ManifestError, ModelError, ConfigError, SlideError
        If the pairs cannot be used.
    StoppedError
        If it was asked to stop.
    """
    card = asked.model.card
    data = prepare(asked.pairs, asked.out / "data", card.mpp, execution, subscriber, stop=stop, purpose="measure")
    pairs = data.pairs
    return Chosen(pairs, *(whole_parts(card, pairs) if asked.whole else unseen_parts(card, pairs)))
