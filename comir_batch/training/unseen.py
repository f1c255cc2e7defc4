"""Which parts of pairs a model has not learnt from, as far as its card says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.errors import ConfigError
from comir_batch.training.split import Part, require_region, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.core.card import ModelCard
    from comir_batch.training.pairs import TrainingPair

    Region = tuple[float, float, float, float]

ALL: Region = (0.0, 0.0, 1.0, 1.0)


def unseen_parts(
    card: ModelCard, pairs: Sequence[TrainingPair], region: Region | None = None
) -> tuple[tuple[Part, ...], str]:
    """Return the parts of pairs to measure a model on, and a sentence that says which they are.

    Parameters
    ----------
    card : ModelCard
        Of the model.
    pairs : sequence of TrainingPair
        At least one.
    region : (float, float, float, float), optional
        What was learnt from: left, top, right and bottom as shares of every fixed slide. By default it is the card's,
        of the pairs that the card lists the slides of, and nothing of the others.

    Raises
    ------
    ConfigError
        If the region is none, or leaves nothing to measure on.
    """
    if region is not None:
        require_unseen(region)
        parts = split(pairs, region, 0, 0).unseen
        asked = f"Measured outside {_text(region)} (left, top, right, bottom as shares of each slide), as asked."
        return parts, asked + ("" if _holds(region, _region(card)) else _warning(card, pairs))
    known = _learnt_from(card, pairs)
    others = tuple(Part(pair) for pair in pairs if pair not in known)
    if not known:
        says = f"{card.name} learnt from none of them" if card.data_sha256 else "no slide that it learnt from is listed"
        return others, f"Measured on whole slides; {says}, as its card says."
    kept = split(known, _region(card), 0, 0).unseen
    if not kept:
        return _after_all(card, known, others)
    sentence = (
        f"Measured outside {_text(_region(card))} (left, top, right, bottom as shares of each slide) of {len(known)} "
        f"of {len(pairs)} pairs: the rest of them is what {card.name} learnt from."
    )
    return (*kept, *others), sentence


def require_unseen(region: Region) -> None:
    """Refuse a region that cannot be what was learnt from, or leaves nothing to measure on.

    Raises
    ------
    ConfigError
        If it is so.
    """
    require_region(region)
    if region == ALL:
        raise ConfigError("the region leaves nothing of the slides to measure on: give a smaller one, or --whole")


def whole_parts(card: ModelCard, pairs: Sequence[TrainingPair]) -> tuple[tuple[Part, ...], str]:
    """Return whole pairs to measure a model on, and a sentence that warns where it learnt from them."""
    return tuple(Part(pair) for pair in pairs), f"Measured on whole slides, as asked.{_warning(card, pairs)}"


def _learnt_from(card: ModelCard, pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    learnt = set(card.data_sha256.values())
    return [pair for pair in pairs if {pair.fixed.digest, pair.moving.digest} & learnt]


def _warning(card: ModelCard, pairs: Sequence[TrainingPair]) -> str:
    known = _learnt_from(card, pairs)
    if not known:
        return ""
    count = f"{len(known)} of these {len(pairs)} pairs"
    return f" Careful: {card.name} learnt from {_text(_region(card))} of {count}, so that the figures flatter it."


def _holds(outer: Region, inner: Region) -> bool:
    return all(a <= b for a, b in zip(outer[:2], inner[:2], strict=True)) and all(
        a >= b for a, b in zip(outer[2:], inner[2:], strict=True)
    )


def _after_all(
    card: ModelCard, known: Sequence[TrainingPair], others: tuple[Part, ...]
) -> tuple[tuple[Part, ...], str]:
    """Leave out what was learnt from as a whole, if anything remains."""
    names = ", ".join(pair.name for pair in known)
    if others:
        return others, f"Measured on whole slides, without {names}: {card.name} learnt from them."
    warning = f"Careful: {card.name} learnt from these very slides, so that every figure flatters it. Measured on all."
    return tuple(Part(pair) for pair in known), warning


def _region(card: ModelCard) -> Region:
    """Return the region that the card names; the whole slides if it names none."""
    words = str(card.training.get("region", "")).split()
    left, top, right, bottom = (float(word) for word in words) if len(words) == 4 else ALL
    return left, top, right, bottom


def _text(region: Region) -> str:
    return " ".join(f"{share:g}" for share in region)
