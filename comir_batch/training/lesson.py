"""What a training learns from: slides rewritten as Zarr, checked, and split."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from comir_batch.core.card import ModalityCard
from comir_batch.core.errors import ConfigError, ManifestError, ModelError, Problem, SlideError
from comir_batch.pipeline.model_choice import require_network
from comir_batch.training.alignment import in_words, require_aligned
from comir_batch.training.crops import CropReader
from comir_batch.training.pairs import prepare
from comir_batch.training.places import SMALLEST, Places, require_places
from comir_batch.training.split import Part, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.training.alignment import Alignment
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.pairs import Prepared, TrainingPair
    from comir_batch.training.split import Split

    Modalities = tuple[ModalityCard, ModalityCard]

_FEWEST_PLACES, _ENOUGH_PLACES, _RGB = 4, 64, 3


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
    stained : (bool, bool)
        Which slides are images in colour whose stains vary in training.
    held_out : tuple of Part
        Other pairs, which the model is measured on.
    held_out_alignments : dict
        How well each of them is aligned, by name.
    """

    data: Prepared
    parts: Split
    modalities: tuple[ModalityCard, ModalityCard]
    alignments: dict[str, Alignment]
    stained: tuple[bool, bool] = (False, False)
    held_out: tuple[Part, ...] = ()
    held_out_alignments: dict[str, Alignment] = field(default_factory=dict)

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
        Told in a sentence how well each pair is aligned, what is left out, and what else was decided.
    subscriber : callable
        Hears of the progress.

    Raises
    ------
    ManifestError, SlideError, ConfigError
        If they cannot be learnt from.
    """
    data = prepare(manifest, folder / "pairs", config.mpp, config.execution, subscriber, stop=stop)
    modalities, stained = _modalities(config, data), _stained(config, data, say)
    parts = split(data.pairs, config.region, config.validation, config.seed)
    _require_tissue((*parts.training, *parts.validation), modalities, data.mpp)
    parts = replace(parts, unseen=tuple(_with_tissue(parts.unseen, modalities, data.mpp, say)))
    _look_for_places(parts.training, config.crop, data.mpp, say)
    alignments = require_aligned(data.pairs, (*parts.training, *parts.validation), enforced=config.check_alignment)
    for sentence in in_words(alignments.values()):
        say(sentence)
    kept = () if held_out is None else _held_out(held_out, folder / "held-out", data, config, stop, subscriber)
    _require_tissue(kept, modalities, data.mpp)
    _require_fit((*data.pairs, *(part.pair for part in kept)), modalities)
    # Refused as those to learn from are: hours later, figures on such pairs would tell nothing of the model.
    others = require_aligned([part.pair for part in kept], kept, enforced=config.check_alignment, measured=True)
    for sentence in in_words(others.values()):
        say(f"held out: {sentence}")
    lesson = Lesson(data, parts, modalities, alignments, stained, kept, others)
    _require_room(lesson)
    return lesson


def _require_tissue(parts: Iterable[Part], modalities: Modalities, mpp: float) -> None:
    """Refuse pairs that cannot be read, all at once."""
    problems = [problem for part in parts for problem in _without_tissue(part, modalities, mpp)]
    if problems:
        raise ManifestError(sorted(set(problems)))


def _require_fit(pairs: Iterable[TrainingPair], modalities: Modalities) -> None:
    """Refuse slides on which no run would take the model that shall be trained, so that it could not be measured."""
    problems = []
    for pair, (column, card) in product(pairs, zip(("fixed", "moving"), modalities, strict=True)):
        try:
            require_network("to be trained", card, getattr(pair, column).working.info)
        except ModelError as error:
            remedy = f"Leave the row out, or change the settings {column} or {column}_photometric"
            problems.append(Problem(pair.row, column, f"pair {pair.name}: {error}", remedy))
    if problems:
        raise ManifestError(problems)


def _without_tissue(part: Part, modalities: Modalities, mpp: float) -> Iterator[Problem]:
    for column, card in zip(("fixed", "moving"), modalities, strict=True):
        try:
            CropReader(getattr(part.pair, column), part.box, card.input, mpp)
        except SlideError as error:
            remedy = f"Leave the row out, or give a mask ({column}_mask)"
            yield Problem(part.pair.row, column, f"pair {part.pair.name}: {error}", remedy)


def _with_tissue(
    parts: Iterable[Part], modalities: Modalities, mpp: float, say: Callable[[str], None]
) -> Iterator[Part]:
    """Yield what can be measured on."""
    for part in parts:
        problems = list(_without_tissue(part, modalities, mpp))
        if problems:
            say(f"not measured on: {problems[0].reason}")
        else:
            yield part


def _look_for_places(parts: Sequence[Part], side: int, mpp: float, say: Callable[[str], None]) -> None:
    """Say what is left out of the training, and what of masks is read all the same; refuse too little."""
    count = require_places(parts, side, mpp, _FEWEST_PLACES)
    if count < _ENOUGH_PLACES:
        say(f"there is room for {count} crops side by side: what so little teaches may not carry to other images")
    for part in parts:
        places = Places(part, mpp)
        if places.refusal(side):
            say(f"not learnt from: {places.refusal(side)}")
        elif not places.keep_to_masks(side):
            name = part.pair.name
            say(f"pair {name}: its masks have no room for a crop of {side} pixels; what lies around them is read too")


def _require_room(lesson: Lesson) -> None:
    """See to it that the model can be measured, before it is trained."""
    refused = ""
    for part in lesson.measured:
        refused = Places(part, lesson.data.mpp).refusal(SMALLEST)
        if not refused:
            return
    raise SlideError(f"there is no room to measure the model: {refused}; or hold out more (--held-out, validation)")


def _held_out(
    manifest: Path, folder: Path, data: Prepared, config: TrainConfig, stop: StopRequest, subscriber: Subscriber
) -> tuple[Part, ...]:
    other = prepare(manifest, folder, data.mpp, config.execution, subscriber, stop=stop, purpose="measure")
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


def _modalities(config: TrainConfig, data: Prepared) -> Modalities:
    asked = config.fixed_photometric, config.moving_photometric
    first, second = (
        ModalityCard(
            modality=name,
            architecture=config.network(channels if settings.reduction == "none" else 1),
            input=settings,
            photometric="brightfield" if photometric == "brightfield" and wanted != "any" else "",
        )
        for name, channels, photometric, settings, wanted in zip(
            data.modalities, data.channels, data.photometrics, (config.fixed, config.moving), asked, strict=True
        )
    )
    return first, second


def _stained(config: TrainConfig, data: Prepared, say: Callable[[str], None]) -> tuple[bool, bool]:
    """Decide which modalities are stained sections in colour, and say so."""
    asked = {"fixed_photometric": config.fixed_photometric, "moving_photometric": config.moving_photometric}
    stained = []
    for (setting, wanted), name, channels, found in zip(
        asked.items(), data.modalities, data.channels, data.photometrics, strict=True
    ):
        stained.append(channels == _RGB and wanted != "any" and "brightfield" in {wanted, found})
        if stained[-1]:
            say(f"{name} is taken for stained sections on bright glass; if not, give --set {setting}=any")
    return stained[0], stained[1]
