"""Which model a pair uses: the row's, else the run's, else the one shipped model that knows both, else none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.errors import ModelError
from comir_batch.pipeline.working import working_level
from comir_batch.representation.store import find_model, list_models

if TYPE_CHECKING:
    from comir_batch.core.card import ModelCard
    from comir_batch.core.slide import SlideInfo
    from comir_batch.representation.store import Model

NONE = "none"


def choose_model(asked: str, fixed: tuple[str, SlideInfo], moving: tuple[str, SlideInfo]) -> tuple[Model | None, str]:
    """Choose a pair's model.

    Parameters
    ----------
    asked : str
        Name or folder of a model, `none`, or empty to let the modalities decide.
    fixed, moving : (str, SlideInfo)
        Modality and headers of each slide.

    Returns
    -------
    model : Model or None
        None for the raw images.
    sentence : str
        How it was chosen, for the report.

    Raises
    ------
    ModelError
        If a model that was asked for does not exist or does not fit; one that was not asked for is passed over instead,
        and the sentence says so.
    """
    if asked.lower() == NONE:
        return None, "No model, as asked: the raw images are registered by mutual information."
    if asked:
        model = find_model(asked)
        _require_fit(model.card, fixed, moving)
        return model, f"Model {model.card.name}, as asked."
    known = [card for card in list_models() if card.knows(fixed[0], moving[0])]
    names = f"{fixed[0]} and {moving[0]}"
    if len(known) != 1:
        count = f"{len(known)} shipped models know" if known else "no shipped model knows"
        raw = "the raw images are registered by mutual information"
        return None, f"No model was asked for and {count} {names}: {raw}."
    try:
        _require_fit(known[0], fixed, moving)
    except ModelError as error:
        return None, f"The shipped model {known[0].name} was passed over ({error}): the raw images are registered."
    return find_model(known[0].name), f"Model {known[0].name}, the one shipped model that knows {names}."


def _require_fit(card: ModelCard, *slides: tuple[str, SlideInfo]) -> None:
    for modality, info in slides:
        if not card.knows(modality):
            known = " and ".join(part.modality for part in card.modalities)
            raise ModelError(f"the model {card.name} knows {known}, not {modality}")
        _require_channels(card, modality, info)
        size = working_level(info, card.mpp).mpp
        if not 1 / card.mpp_tolerance <= size / card.mpp <= card.mpp_tolerance:
            raise ModelError(
                f"the model {card.name} was trained at {card.mpp:g} µm/px, the {modality} slide has {size:.3g} at best"
            )


def _require_channels(card: ModelCard, modality: str, info: SlideInfo) -> None:
    network = card.modality(modality)
    if network.architecture.latent_channels != 1:
        raise ModelError(
            f"the model {card.name} has {network.architecture.latent_channels} latent channels; registration takes one"
        )
    wanted = network.architecture.in_channels
    if network.input.reduction == NONE and len(info.channels) != wanted:
        have = f"{len(info.channels)} ({', '.join(info.channels)})"
        raise ModelError(f"the model {card.name} takes {wanted} channels of {modality}, the slide has {have}")
