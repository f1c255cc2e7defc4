"""Diagnosis of a model on unseen parts of aligned pairs: whether, and why, it can be relied on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from comir_batch.core.errors import ModelError, SlideError
from comir_batch.training.collapse import spectrum
from comir_batch.training.critics import CRITICS
from comir_batch.training.diagnosis import (
    JOINT,
    Diagnosis,
    Partners,
    Space,
    Spread,
    Stability,
    Success,
    Turning,
)
from comir_batch.training.evaluate import match, turning, unit
from comir_batch.training.known_rigid import LEVELS, draw_field, has_room, success
from comir_batch.training.mds import smacof
from comir_batch.training.places import SMALLEST
from comir_batch.training.sampling import Sampler
from comir_batch.training.validate import crop_representation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from comir_batch.representation.device import Device
    from comir_batch.representation.store import Model
    from comir_batch.training.known_rigid import Field
    from comir_batch.training.sampling import Network, Place
    from comir_batch.training.split import Part

    Image = NDArray[np.float32]

CROPS, STEP = 192, 15
"""Crops and degrees between angles of a usual diagnosis."""
_MATCHED, _MAPPED, _COMPARED = 64, 60, 32
_A_TURNED = 32  # crops for each that is turned
_SAME_MPP = 0.02
_CELLS = {"output": 8, "bottleneck": 2}  # along an axis, to which features are averaged before their spectrum
_DISTANCES = {"mse": "root mean square difference", "cosine": "1 - cosine", "l1": "mean absolute difference"}
_WHAT = {"output": "the CoMIR", "bottleneck": "the features of the bottleneck"}


def diagnose(
    model: Model,
    parts: Sequence[Part],
    others: Sequence[Model] = (),
    *,
    crops: int = CROPS,
    seed: int = 0,
    step: int = STEP,
    device: Device = "auto",
) -> Diagnosis:
    """Diagnose a model.

    Parameters
    ----------
    model : Model
        Which.
    parts : sequence of Part
        Of aligned pairs, not learnt from; at least one.
    others : sequence of Model
        The same, trained with other seeds.
    crops : int
        How many give the spectra, at least 4; a quarter as many known transforms are tried, and one in 32 is turned
        all round.
    seed : int
        Of the places.
    step : int
        Degrees between the angles of the images that are turned.
    device : {"auto", "cpu", "cuda"}
        Where networks run.

    Raises
    ------
    ModelError
        If a model does not fit the slides, or another one is not comparable.
    SlideError
        If no part has room for a crop.
    """
    require_comparable(model, others)
    sampler, rng = Sampler(model, parts, device), np.random.default_rng(seed)
    side, places = sampler.draw(crops, rng)
    seen = {network.modality: [_features(network, place, side) for place in places] for network in sampler.networks}
    matched = match(sampler.networks, places[:_MATCHED], side)
    compared, turned = places[:_COMPARED], places[: max(crops // _A_TURNED, 1)]
    return Diagnosis(
        model=model.card.name,
        weights_sha256=model.card.weights_sha256,
        pairs=tuple(dict.fromkeys(part.pair.name for part in parts)),
        mpp=model.card.mpp,
        crop=side,
        seed=seed,
        success=_success(sampler, crops // 4, rng),
        turning=tuple(_turning(network, turned, side, step) for network in sampler.networks),
        partners=Partners(
            len(matched.scores), matched.retrieved, matched.auc, tuple(matched.true), tuple(matched.wrong)
        ),
        spaces=tuple(_space(name, index, seen, model) for index, name in enumerate(_CELLS)),
        stability=tuple(
            each for other in others for each in _stability(other, Sampler(other, parts, device), compared, seen)
        ),
    )


def _features(network: Network, place: Place, side: int) -> tuple[Image, Image]:
    return network.representer.features(network.reader(place).read(place.upright, side))


def _success(sampler: Sampler, count: int, rng: np.random.Generator) -> Success:
    """Try known transforms, as many at each level, on windows."""
    each = max(count // len(LEVELS), 1)
    side, places = sampler.draw(each * len(LEVELS), rng, window=True)
    represent = tuple(partial(crop_representation, network.representer) for network in sampler.networks)
    fields = _fields(places, side, rng)
    levels = tuple(success((represent[0], represent[1]), fields[level :: len(LEVELS)]) for level in range(len(LEVELS)))
    return Success(levels, len(fields), fields[0].fixed.shape[-1])


def _fields(places: Sequence[Place], side: int, rng: np.random.Generator) -> list[Field]:
    """Draw known transforms of crops as large as one part has room for, from those that have."""
    readers = [place.reader for place in places]
    able = {reader for reader in set(readers) if has_room(reader, side)} or set(readers)
    roomy = [reader for reader in readers if reader in able]
    try:
        return [draw_field(roomy[i % len(roomy)], rng, i % len(LEVELS), side) for i in range(len(places))]
    except SlideError:
        if side <= SMALLEST:
            raise
        return _fields(places, side // 2, rng)


def _turning(network: Network, places: Sequence[Place], side: int, step: int) -> Turning:
    angles = tuple(range(0, 360, step))
    turned, mirrored = (
        tuple(Spread.of(row) for row in turning(network, places, side, angles, mirrored=mirrored))
        for mirrored in (False, True)
    )
    return Turning(network.modality, (*angles, 360), (*turned, turned[0]), (*mirrored, mirrored[0]))


def _space(name: str, index: int, seen: dict[str, list[tuple[Image, Image]]], model: Model) -> Space:
    """Describe the outputs (index 0) or the bottlenecks (index 1) of all crops."""
    features = {modality: np.stack([both[index] for both in crops]) for modality, crops in seen.items()}
    vectors = {modality: _averaged(images, _CELLS[name]) for modality, images in features.items()}
    spectra = {modality: spectrum(rows) for modality, rows in vectors.items()}
    spectra[JOINT] = spectrum(np.concatenate(list(vectors.values())))
    cells = min(_CELLS[name], next(iter(features.values())).shape[-1])
    critic = str(model.card.training.get("critic", "mse"))
    mapped = np.concatenate([images[:_MAPPED] for images in features.values()])
    embedding = smacof(_distances(mapped, critic, whole=name == "bottleneck"))
    points = np.split(embedding.points, len(features))
    return Space(
        name=name,
        features=f"{_WHAT[name]} averaged to {cells} x {cells} cells",
        spectra=spectra,
        distance=_DISTANCES[critic],
        points={m: tuple((float(x), float(y)) for x, y in p) for m, p in zip(features, points, strict=True)},
        stress=embedding.stress,
    )


def _averaged(images: Image, cells: int) -> NDArray[np.float64]:
    """Return ``(N, C, Y, X)`` images averaged to so many cells a side, as vectors; smaller ones stay as they are."""
    cells = min(cells, images.shape[-1])
    small = [[cv2.resize(channel, (cells, cells), interpolation=cv2.INTER_AREA) for channel in im] for im in images]
    return np.array(small, dtype=np.float64).reshape(len(images), -1)


def _distances(images: Image, critic: str, *, whole: bool) -> NDArray[np.float64]:
    """Return the distances ``(N, N)`` that a critic sees; ``whole`` makes all features of an image one vector."""
    tensor = torch.from_numpy(images)
    if critic == "cosine" and whole:
        tensor = tensor.flatten(1)[:, :, None, None]
    scores: Callable[[torch.Tensor], torch.Tensor] = CRITICS[critic]  # type: ignore[index]  # a card's text
    away = (float(critic == "cosine") - scores(tensor).double().numpy()).clip(0)
    np.fill_diagonal(away, 0)
    away = (away + away.T) / 2
    return np.asarray(np.sqrt(away) if critic == "mse" else away)


def require_comparable(model: Model, others: Sequence[Model]) -> None:
    """Refuse other models that see other crops, by their inputs or their pixel size.

    Raises
    ------
    ModelError
        If there is one.
    """
    inputs = {card.modality: card.input for card in model.card.modalities}
    for other in (each.card for each in others):
        if {card.modality: card.input for card in other.modalities} != inputs:
            raise ModelError(f"the model {other.name} takes other images than {model.card.name}; compare like models")
        if abs(other.mpp / model.card.mpp - 1) > _SAME_MPP:
            raise ModelError(
                f"the model {other.name} was trained at {other.mpp:g} µm/px, {model.card.name} at {model.card.mpp:g}; "
                "compare models of one pixel size"
            )


def _stability(
    other: Model, sampler: Sampler, places: Sequence[Place], seen: dict[str, list[tuple[Image, Image]]]
) -> Iterator[Stability]:
    for network in sampler.networks:
        crops = seen[network.modality][: len(places)]
        found = [
            _likeness(first, network.represent(place, place.upright, first.shape[-1]))
            for (first, _), place in zip(crops, places, strict=True)
        ]
        name = other.card.name if other.folder.name == other.card.name else f"{other.card.name} ({other.folder.name})"
        yield Stability(name, network.modality, Spread.of(np.array(found)))


def _likeness(first: Image, second: Image) -> float:
    """Return the correlation, without its sign, of channels paired as they correlate best; mean over channels."""
    rows, columns = ([unit(channel.ravel().astype(np.float64)) for channel in image] for image in (first, second))
    scores = np.abs(np.stack(rows) @ np.stack(columns).T)
    return float(scores[linear_sum_assignment(scores, maximize=True)].mean())
