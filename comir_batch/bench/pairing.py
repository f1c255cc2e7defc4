"""How well two shuffled folders of fields are paired: who belongs together, who is alone, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize

from comir_batch.bench.cut_out import moved, save_field, save_table
from comir_batch.bench.parts import chosen_parts
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.report import markdown
from comir_batch.retrieval.find import margin
from comir_batch.retrieval.margins import confidence_at
from comir_batch.retrieval.pairing import PairRequest, compare, proposed
from comir_batch.retrieval.proposals import Status, write_proposals
from comir_batch.retrieval.tables import read_slides
from comir_batch.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest
    from comir_batch.representation.store import Model
    from comir_batch.retrieval.pairing import Compared
    from comir_batch.retrieval.proposals import Proposal
    from comir_batch.training.sampling import Place

_SHIFT = 0.125  # of a field's side, either way
_SIDES = ("fixed", "moving")
COLUMNS = ("said", "fields", "right")
_BINS = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)  # of confidences
_WEAK = 0.01  # weight of the prior that keeps the steepness finite where margins of right and wrong do not meet


@dataclass(frozen=True, slots=True)
class PairingRequest:
    """What to measure.

    Attributes
    ----------
    model : Model
        Knows both modalities of the pairs.
    pairs : Path
        Manifest of aligned pairs.
    out : Path
        Takes both folders of fields, what `pair` makes of them, and the figures.
    count, alone : int
        Fields of each modality that have a partner, and more of each that have none.
    side : int
        Of the fields, in pixels of the model's pixel size.
    whole : bool
        Take fields of all tissue, learnt from or not.
    """

    model: Model
    pairs: Path
    out: Path
    config: RunConfig
    count: int = 40
    alone: int = 5
    side: int = 128
    seed: int = 0
    whole: bool = False


class Margins(NamedTuple):
    """Margins of the best places of fields that have a partner: with it, and as if it were not there."""

    right: tuple[float, ...]
    wrong: tuple[float, ...]


class Pairing(NamedTuple):
    """What was said of both folders.

    Attributes
    ----------
    rows : list of tuple
        `COLUMNS`: what was said, of how many fields of both folders, and of how many of them rightly.
    margins : Margins
        What confidences rest on.
    """

    rows: list[tuple[str, int, int]]
    margins: Margins


def measure_pairing(
    request: PairingRequest, stop: StopRequest, subscriber: Subscriber, say: Callable[[str], object]
) -> Pairing:
    """Cut fields that do not overlap, shuffle them, pair them, and write ``pairing.json`` and ``pairing.md``.

    Fixed fields are upright, moving ones at any angle, half of them mirrored, shifted by up to an eighth of the side.

    Raises
    ------
    ManifestError, ModelError, ConfigError, SlideError
        If the pairs cannot be used, or have no room for as many fields.
    StoppedError
        If it was asked to stop.
    """
    _, parts, which = chosen_parts(request, request.config.execution, subscriber, stop)
    places = _chosen(Sampler(request.model, parts, "cpu"), request)
    tables, partners = _cut(places, request)
    fixed, moving = (read_slides(table) for table in tables)
    asked = PairRequest(
        fixed, moving, tables, request.model, request.out / "manifest.csv", request.out / "work", request.config
    )
    compared = compare(asked, subscriber, stop, say)
    proposals = proposed(compared)
    write_proposals(asked.out, proposals, request.model)
    result = Pairing(counted(proposals, partners), margins(compared, partners))
    _write(request, result, which)
    return result


def _chosen(sampler: Sampler, request: PairingRequest) -> list[Place]:
    """Return places in random order: those of partners, of fixed fields alone, and of moving fields alone."""
    places, needed = sampler.lattice(request.side), request.count + 2 * request.alone
    if len(places) < needed:
        raise ConfigError(
            f"the slides' parts have room for {len(places)} fields of {request.side} pixels that do not overlap, not "
            f"for {needed}; take fewer or smaller ones, give more slides, or --whole"
        )
    order = np.random.default_rng(request.seed).permutation(len(places))
    return [places[k] for k in order[:needed]]


def _cut(places: Sequence[Place], request: PairingRequest) -> tuple[tuple[Path, Path], dict[str, str]]:
    """Write both folders of fields; return their tables, and the names of partners, fixed to moving."""
    rng = np.random.default_rng(request.seed + 1)
    count, alone, side = request.count, request.alone, request.side
    of_fixed = list(range(count + alone))
    of_moving = [*range(count), *range(count + alone, count + 2 * alone)]
    names = [
        dict(zip(numbers, (f"{prefix}-{n:03}" for n in rng.permutation(len(numbers))), strict=True))
        for numbers, prefix in ((of_fixed, "fixed"), (of_moving, "moving"))
    ]
    for number in of_fixed:
        place = places[number]
        save_field(place.reader.fixed, place.upright, side, request.out / "fixed" / f"{names[0][number]}.ome.tif")
    for number in of_moving:
        place = places[number]
        pose = moved(place.upright, _SHIFT * side * request.model.card.mpp, rng)
        save_field(place.reader.moving, pose, side, request.out / "moving" / f"{names[1][number]}.ome.tif")
    pair = places[0].part.pair
    fixed, moving = (
        save_table(request.out / f"{name}.csv", name, slide.modality, sorted(of.values()))
        for name, slide, of in zip(_SIDES, (pair.fixed, pair.moving), names, strict=True)
    )
    return (fixed, moving), {names[0][k]: names[1][k] for k in range(count)}


def counted(proposals: Sequence[Proposal], partners: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Return for each status how many fields of both folders it was given to, and to how many rightly.

    Fields of a pair count twice. It is right if they are partners; ``no partner`` is right of those that have none.
    """
    with_one = {*partners, *partners.values()}
    rows = []
    for status in Status:
        said = right = 0
        for each in (proposal for proposal in proposals if proposal.status is status):
            slides = [slide.name for slide in (each.fixed, each.moving) if slide is not None]
            said += len(slides)
            if len(slides) > 1:
                right += 2 * (partners.get(slides[0]) == slides[1])
            else:
                right += slides[0] not in with_one
        rows.append((status.value, said, right))
    return rows


def margins(compared: Compared, partners: Mapping[str, str]) -> Margins:
    """Return the margins of the fields that have a partner, as `pair` takes them, with it and as if it were not there.

    Where it was not among the places that were verified, both are wrong.
    """
    known = partners if not compared.searched_is_fixed else {moving: fixed for fixed, moving in partners.items()}
    right, wrong = [], []
    for query, places in zip(compared.queries, compared.found, strict=True):
        partner = known.get(query.name)
        mine = next((place for place in places if place.slide.name == partner), None)
        others = [place for place in places if place.slide.name != partner]
        if partner is None or len(others) < 2:
            continue
        wrong.append(margin(others))
        if mine is None:
            wrong.append(margin(others))
        else:
            right.append(margin(places, mine))
    return Margins(tuple(right), tuple(wrong))


def fitted(margins: Margins) -> tuple[float, float]:
    """Return the margin at which right and wrong are as likely, and how steeply the odds grow, by logistic regression.

    The odds are ``(margin / even) ** steepness`` where as many fields have a partner as have none.
    """
    logs = np.log([*margins.right, *margins.wrong])
    sign = np.array([1.0] * len(margins.right) + [-1.0] * len(margins.wrong))

    def loss(of: Sequence[float]) -> float:
        return float(np.logaddexp(0, -sign * (of[0] * logs - of[1])).mean() + _WEAK * (of[0] / 16) ** 2)

    slope, offset = optimize.minimize(loss, [16.0, 4.0], method="Nelder-Mead").x.tolist()
    return math.exp(offset / slope), slope


def reliability(margins: Margins) -> list[tuple[str, int, float, float]]:
    """Return for each bin of confidences: its limits, fields, mean confidence, and share that are right."""
    confidences = np.array([confidence_at(each) for each in (*margins.right, *margins.wrong)])
    right = np.arange(len(confidences)) < len(margins.right)
    rows = []
    for low, high in pairwise(_BINS):
        inside = (confidences >= low) & ((confidences < high) | (high == _BINS[-1]))
        if inside.any():
            shares = float(confidences[inside].mean()), float(right[inside].mean())
            rows.append((f"{low:g}-{high:g}", int(inside.sum()), *shares))
    return rows


def _write(request: PairingRequest, result: Pairing, which: str) -> None:
    known = result.margins
    odds = fitted(known) if known.right else None  # no partner was found: there is nothing to fit
    settings = {"count": request.count, "alone": request.alone, "side": request.side, "seed": request.seed}
    write_json(
        request.out / "pairing.json",
        {
            "measured": which,
            "settings": settings,
            "rows": result.rows,
            "margins": known._asdict(),
            "fitted": None if odds is None else {"even": odds[0], "steepness": odds[1]},
            "reliability": reliability(known),
        },
    )
    tables = [
        markdown.table(COLUMNS, result.rows),
        markdown.table(
            ("confidence", "fields", "mean confidence", "share right"),
            [(name, count, f"{mean:.3f}", f"{share:.3f}") for name, count, mean, share in reliability(known)],
        ),
    ]
    told = "No partner was found, so no odds were fitted."
    if odds is not None:
        told = f"Even odds at a margin of {odds[0]:.2f}; odds grow with its power {odds[1]:.1f}."
    write_text(request.out / "pairing.md", "\n\n".join([which, *tables, told]) + "\n")
