"""What a training learns from: slides rewritten as Zarr, checked, and split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.card import ModalityCard
from comir_batch.training.alignment import require_aligned
from comir_batch.training.pairs import prepare
from comir_batch.training.places import require_places
from comir_batch.training.split import split

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.training.alignment import Alignment
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.pairs import Prepared
    from comir_batch.training.split import Part, Split

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
    """

    data: Prepared
    parts: Split
    modalities: tuple[ModalityCard, ModalityCard]
    alignments: dict[str, Alignment]

    @property
    def measured(self) -> tuple[Part, ...]:
        """What a model is measured on: the parts that it never read, else those that decided when to stop."""
        return self.parts.unseen or self.parts.validation

    @property
    def stained(self) -> tuple[bool, bool]:
        """Which slides are brightfield images in colour."""
        first, second = (
            p == "brightfield" and n == 3 for p, n in zip(self.data.photometrics, self.data.channels, strict=True)
        )
        return first, second


def prepare_lesson(
    manifest: Path,
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
    data = prepare(manifest, folder, config.mpp, config.execution, subscriber, stop=stop)
    parts = split(data.pairs, config.region, config.validation, config.seed)
    places = require_places(parts.training, config.crop, data.mpp, _FEWEST_PLACES)
    if places < _ENOUGH_PLACES:
        say(f"there is room for {places} crops side by side: what so little teaches may not carry to other images")
    alignments = require_aligned(data.pairs, parts, enforced=config.check_alignment)
    for alignment in alignments.values():
        say(alignment.sentence)
    return Lesson(data, parts, _modalities(config, data), alignments)


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
