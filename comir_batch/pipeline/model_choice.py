"""Which model a pair uses: the row's, else the run's, else the one that knows both, yours before shipped, else none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import ModelError
from comir_batch.pipeline.working import working_level
from comir_batch.representation.store import find_model, known_models, unreadable_models

if TYPE_CHECKING:
    from comir_batch.core.card import ModalityCard, ModelCard
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
        How it was chosen, for the report, and at which pixel size it works where that is not the one of its training.

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
        require_fit(model.card, fixed, moving)
        return model, f"Model {model.card.name}, as asked{_resampling(model.card, fixed, moving)}."
    names, raw = f"{fixed[0]} and {moving[0]}", "the raw images are registered"
    whose, known = _knowing(fixed[0], moving[0])
    if len(known) != 1:
        count = f"{len(known)} {whose} models know" if known else f"no {whose} model knows"
        return None, f"No model was asked for and {count} {names}: {raw} by mutual information.{_left_out()}"
    card = known[0].card
    try:
        require_fit(card, fixed, moving)
    except ModelError as error:
        return None, f"The {whose} model {card.name} was passed over ({error}): {raw}.{_left_out()}"
    said = _resampling(card, fixed, moving)
    return known[0], f"Model {card.name}, the one {whose} model that knows {names}{said}.{_left_out()}"


def _knowing(*modalities: str) -> tuple[str, list[Model]]:
    """Return the models that know all modalities, and whose they are; the user's own come before the shipped ones."""
    known = [model for model in known_models() if model.card.knows(*modalities)]
    own = [model for model in known if not model.shipped]
    return ("added", own) if own else ("shipped", known)


def _left_out() -> str:
    """Say which of the user's own models could not be considered."""
    unread = ", ".join(unreadable_models())
    return f" The cards of models of yours cannot be read: {unread}; see comir-batch models list." if unread else ""


def _resampling(card: ModelCard, *slides: tuple[str, SlideInfo]) -> str:
    """Say at which pixel sizes slides are worked on, if one is not that of the training."""
    sizes = [f"{working_level(info, card.mpp).mpp:.3g}" for _, info in slides]
    trained = f"{card.mpp:.3g}"
    if set(sizes) == {trained}:
        return ""
    where = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} (fixed) and {sizes[1]} (moving)"
    return f"; worked on at {where} µm/px, trained at {trained}"


def require_fit(card: ModelCard, *slides: tuple[str, SlideInfo]) -> None:
    """Refuse slides that a model cannot represent, for a run as for a diagnosis.

    Raises
    ------
    ModelError
        If it does not know a modality, or takes other channels, pixels, glass or pixel sizes.
    """
    for modality, info in slides:
        if not card.knows(modality):
            known = " and ".join(part.modality for part in card.modalities)
            raise ModelError(f"the model {card.name} knows {known}, not {modality}")
        require_network(card.name, card.modality(modality), info)
        size = working_level(info, card.mpp).mpp
        if not 1 / card.mpp_tolerance <= size / card.mpp <= card.mpp_tolerance:
            raise ModelError(
                f"the model {card.name} was trained at {card.mpp:g} µm/px, the {modality} slide has {size:.3g} at best"
            )


def require_network(name: str, network: ModalityCard, info: SlideInfo) -> None:
    """Refuse a slide that a network of the model of that name cannot represent, whatever its pixel size.

    Raises
    ------
    ModelError
        If it takes other channels, pixels or glass.
    """
    wanted = network.architecture.in_channels
    if network.input.reduction == NONE and len(info.channels) != wanted:
        have = f"{len(info.channels)} ({', '.join(info.channels)})"
        raise ModelError(f"the model {name} takes {wanted} channels of {network.modality}, the slide has {have}")
    if network.photometric not in {"", info.photometric}:
        found = f"{network.photometric} images of {network.modality}, the slide is {info.photometric}"
        raise ModelError(f"the model {name} takes {found}")
    full, dtype = network.input.full or 0, np.dtype(info.dtype)
    if dtype.kind in "iu" and np.iinfo(dtype.str).max < full:
        raise ModelError(
            f"the model {name} takes pixels of {network.modality} up to {full:g}, the slide has {info.dtype} pixels"
        )
