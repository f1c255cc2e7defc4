"""Places of unseen tissue at which a model is measured, drawn over parts of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from comir_batch.core.errors import ModelError, SlideError
from comir_batch.pipeline.model_choice import require_fit
from comir_batch.representation.weights import load
from comir_batch.training.crops import PairReader, Pose, shares
from comir_batch.training.places import SMALLEST
from comir_batch.training.validate import crop_representation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.card import ModalityCard
    from comir_batch.pipeline.chunked import ChunkedSlide
    from comir_batch.representation.device import Device
    from comir_batch.representation.inference import Representer
    from comir_batch.representation.store import Model
    from comir_batch.training.crops import CropReader
    from comir_batch.training.split import Part

    Image = NDArray[np.float32]

CROP, WINDOW = 128, 256
_LEAST_TISSUE = 0.5
_TRIES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a crop is read: a pair's slides, and the pose there."""

    part: Part
    reader: PairReader
    pose: Pose

    @property
    def upright(self) -> Pose:
        """The same place, neither turned nor mirrored."""
        return Pose(self.pose.x, self.pose.y)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """One network of a model, and which slide of a place it represents."""

    representer: Representer
    moving: bool

    @property
    def modality(self) -> str:
        """What it represents."""
        return self.representer.card.modality

    def reader(self, place: Place) -> CropReader:
        """Return the reader of its slide there."""
        return place.reader.moving if self.moving else place.reader.fixed

    def represent(self, place: Place, pose: Pose, side: int) -> Image:
        """Return the ``(latent, side, side)`` representation of a crop alone, which is all that the network sees."""
        return self.representer.run(self.reader(place).read(pose, side))

    def window(self, place: Place, side: int) -> Image:
        """Return the ``(latent, side, side)`` representation of an upright crop, continued by reflection."""
        return crop_representation(self.representer, self.reader(place).read(place.upright, side))


class Sampler:
    """Draws places over parts of pairs, from each part as often as it has room for crops.

    Intensity ranges are those of the whole slides, as in a run.

    Parameters
    ----------
    model : Model
        Which is measured; its pixel size is that of the crops.
    parts : sequence of Part
        At least one; the slides of all have the same modalities in the same order.
    device : {"auto", "cpu", "cuda"}
        Where the networks run.

    Attributes
    ----------
    networks : (Network, Network)
        Of the fixed and of the moving slides.
    modalities : (ModalityCard, ModalityCard)
        Likewise.

    Raises
    ------
    ModelError
        If the model does not fit the slides.
    SlideError
        If a part cannot be used.
    """

    def __init__(self, model: Model, parts: Sequence[Part], device: Device = "auto") -> None:
        first = parts[0].pair
        self.modalities = _card(model, first.fixed), _card(model, first.moving)
        fixed, moving = (load(model, card.modality, device) for card in self.modalities)
        self.networks = Network(fixed, moving=False), Network(moving, moving=True)
        self._readers = [(part, PairReader(part, self.modalities, model.card.mpp, whole_ranges=True)) for part in parts]

    def draw(self, count: int, rng: np.random.Generator, *, window: bool = False) -> tuple[int, list[Place]]:
        """Draw places that crops fit in at every angle, or windows upright.

        Returns
        -------
        side : int
            Pixels: ``CROP`` or ``WINDOW``, halved as often as takes for one part to have room, but no less than
            ``SMALLEST``.
        places : list of Place
            As many as asked for.

        Raises
        ------
        SlideError
            If no part has room for the smallest.
        """
        side = WINDOW if window else CROP
        while True:
            needed = math.ceil(side * math.sqrt(0.5)) if window else side
            try:
                return side, self._draw(count, rng, needed)
            except SlideError:
                if side <= SMALLEST:
                    raise
                side //= 2

    def turned(self, count: int, rng: np.random.Generator, side: int) -> list[Place]:
        """Draw places of crops that lie wholly in their part, at any angle at which they do, half of them mirrored.

        Raises
        ------
        SlideError
            If no such place is found.
        """
        upright = math.ceil(side * math.sqrt(0.5))  # a crop so large that may be turned anyhow holds an upright one
        return [self._turned(rng, side, upright) for _ in range(count)]

    def _turned(self, rng: np.random.Generator, side: int, upright: int) -> Place:
        for _ in range(_TRIES):
            (place,) = self._draw(1, rng, upright)
            angle, mirrored = float(rng.uniform(-math.pi, math.pi)), bool(rng.integers(2))
            pose = place.pose._replace(angle=angle, mirrored=mirrored)
            if place.reader.fixed.valid(pose, side).all():
                return replace(place, pose=pose)
        raise SlideError(f"the parts have no place for a crop of {side} pixels; take smaller ones, or larger parts")

    def lattice(self, side: int) -> list[Place]:
        """Return places of upright crops beside each other, in rows, none of which overlaps another.

        Of each, all of the crop lies in its part, and half or more of it on tissue of both slides.
        """
        return [
            Place(part, reader, pose)
            for part, reader in self._readers
            for pose in _beside_each_other(reader, side)
            if all(each.tissue_at(pose, side).mean() >= _LEAST_TISSUE for each in (reader.fixed, reader.moving))
        ]

    def _draw(self, count: int, rng: np.random.Generator, side: int) -> list[Place]:
        chosen = rng.choice(len(self._readers), count, p=shares([reader for _, reader in self._readers], side))
        drawn = [self._readers[index] for index in chosen]
        return [Place(part, reader, reader.draw(rng, side)) for part, reader in drawn]


def _beside_each_other(reader: PairReader, side: int) -> Iterator[Pose]:
    grid, length = reader.fixed.grid, side * reader.mpp
    columns, rows = (int(extent / length) for extent in grid.size_um)
    left, top = grid.corners_um().min(axis=0).tolist()
    for row, column in product(range(rows), range(columns)):
        yield Pose(left + (column + 0.5) * length, top + (row + 0.5) * length)


def _card(model: Model, slide: ChunkedSlide) -> ModalityCard:
    """Return the card of a slide's modality, if a run would take the model for it."""
    try:
        require_fit(model.card, (slide.modality, slide.working.info))
    except ModelError as error:
        raise ModelError(f"{slide.spec.path.name}: {error}; correct its row, or leave it out") from error
    return model.card.modality(slide.modality)
