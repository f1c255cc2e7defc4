"""What a training learns from: slides rewritten as Zarr, checked, and split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.card import ModalityCard
from comir_batch.core.errors import ConfigError, SlideError
from comir_batch.training.alignment import require_aligned
from comir_batch.training.pairs import prepare
from comir_batch.training.places import Places, require_places
from comir_batch.training.sampling import SMALLEST
from comir_batch.training.split import Part, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.training.alignment import Alignment
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.pairs import Prepared
    from comir_batch.training.split import Split

_FEWEST_PLACES, _ENOUGH_PLACES = 4, 64


@dataclass(frozen=True, slots=True)
class Lesson:
    """All that a training learns from, checked.

    Attributes
    ----------
    data : Prepared
        The slides.
    parts : Split
        What is learnt from, validated on, and never read.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slides.
    alignments : dict
        How well each pair is aligned, by name.
    held_out : tuple of Part
        Other pairs, which the model is measured on.
    """

    data: Prepared
    parts: Split
    modalities: tuple[ModalityCard, ModalityCard]
    alignments: dict[str, Alignment]
    held_out: tuple[Part, ...] = ()

    @property
    def measured(self) -> tuple[Part, ...]:
        """What a model is measured on: what it never read, else what decided when to stop."""
        return self.held_out or self.parts.unseen or self.parts.validation

    @property
    def is_measured_unseen(self) -> bool:
        """Whether the model has never read what it is measured on."""
        return bool(self.held_out or self.parts.unseen)

    @property
    def unseen(self) -> str:
        """In words, what the model never read."""
        if self.held_out:
            return f"The pairs {', '.join(part.pair.name for part in self.held_out)}"
        if self.parts.unseen:
            return "What lies outside the region that it learnt from, of each pair"
        validated = ", ".join(sorted({part.pair.name for part in self.parts.validation}))
        return f"Nothing for good; of {validated} what was not learnt from decided when to stop"

    @property
    def stained(self) -> tuple[bool, bool]:
        """Which slides are brightfield images in colour."""
        first, second = (
            p == "brightfield" and n == 3 for p, n in zip(self.data.photometrics, self.data.channels, strict=True)
        )
        return first, second


def prepare_lesson(
    manifest: Path,
    held_out: Path | None,
    folder: Path,
    config: TrainConfig,
    stop: StopRequest,
    say: Callable[[str], None],
    subscriber: Subscriber,
) -> Lesson:
    """Rewrite the slides of a manifest as Zarr, split them, and see whether they can be learnt from.

    Parameters
    ----------
    manifest : Path
        Aligned pairs.
    held_out : Path or None
        Aligned pairs that the model is measured on.
    folder : Path
        Takes the slides; what is there already is not made again.
    config : TrainConfig
        Settings.
    stop : StopRequest
        Looked at between tasks.
    say : callable
        Told in a sentence how well each pair is aligned.
    subscriber : callable
        Hears of the progress.

    Raises
    ------
    ManifestError, SlideError, ConfigError
        If they cannot be learnt from.
    """
    data = prepare(manifest, folder / "pairs", config.mpp, config.execution, subscriber, stop=stop)
    parts = split(data.pairs, config.region, config.validation, config.seed)
    places = require_places(parts.training, config.crop, data.mpp, _FEWEST_PLACES)
    if places < _ENOUGH_PLACES:
        say(f"there is room for {places} crops side by side: what so little teaches may not carry to other images")
    alignments = require_aligned(data.pairs, parts, enforced=config.check_alignment)
    for alignment in alignments.values():
        say(alignment.sentence)
    kept = () if held_out is None else _held_out(held_out, folder / "held-out", data, config, stop, subscriber)
    lesson = Lesson(data, parts, _modalities(config, data), alignments, kept)
    _require_room(lesson)
    return lesson


def _require_room(lesson: Lesson) -> None:
    """See to it that the model can be measured, before it is trained."""
    refused: SlideError | None = None
    for part in lesson.measured:
        try:
            Places(part, lesson.data.mpp).draw(np.random.default_rng(0), SMALLEST)
        except SlideError as error:
            refused = error
        else:
            return
    raise SlideError(f"there is no room to measure the model: {refused}; or hold out more (--held-out, validation)")


def _held_out(
    manifest: Path, folder: Path, data: Prepared, config: TrainConfig, stop: StopRequest, subscriber: Subscriber
) -> tuple[Part, ...]:
    other = prepare(manifest, folder, data.mpp, config.execution, subscriber, stop=stop)
    if (other.modalities, other.channels) != (data.modalities, data.channels):
        raise ConfigError(
            f"{manifest} has {_described(other)}, the pairs to learn from are {_described(data)}. Hold out the same"
        )
    learnt = {slide.digest for pair in data.pairs for slide in (pair.fixed, pair.moving)}
    both = [pair.name for pair in other.pairs if {pair.fixed.digest, pair.moving.digest} & learnt]
    if both:
        raise ConfigError(
            f"{manifest}: slides of {', '.join(both)} are also learnt from. Remove them from one manifest"
        )
    return tuple(Part(pair) for pair in other.pairs)


def _described(data: Prepared) -> str:
    return " against ".join(f"{m} of {n} channels" for m, n in zip(data.modalities, data.channels, strict=True))


def _modalities(config: TrainConfig, data: Prepared) -> tuple[ModalityCard, ModalityCard]:
    first, second = (
        ModalityCard(
            modality=name,
            architecture=config.network(channels if settings.reduction == "none" else 1),
            input=settings,
            photometric="brightfield" if photometric == "brightfield" else "",
        )
        for name, channels, photometric, settings in zip(
            data.modalities, data.channels, data.photometrics, (config.fixed, config.moving), strict=True
        )
    )
    return first, second
