"""Registration success on held-out crops: known rigid transforms, found again from the representations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.errors import SlideError
from comir_batch.representation.inference import Representer
from comir_batch.representation.weights import load
from comir_batch.training.crops import PairReader
from comir_batch.training.known_rigid import FOUND, LEVELS, draw_field, field_error, has_room
from comir_batch.training.places import SMALLEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.card import ModalityCard
    from comir_batch.representation.device import Device
    from comir_batch.representation.network import DenseUNet
    from comir_batch.representation.store import Model
    from comir_batch.training.known_rigid import Field
    from comir_batch.training.split import Part

    Image = NDArray[np.float32]

MARGIN = 32


class Validation(NamedTuple):
    """How well known transforms were found again.

    Attributes
    ----------
    success : tuple of float
        Share found to 2 % of the width, for each level.
    error : float
        Mean corner error as a share of the width, of every transform at most 1.
    """

    success: tuple[float, ...]
    error: float

    @property
    def mean(self) -> float:
        """Success over all levels."""
        return float(np.mean(self.success))

    def beats(self, other: Validation | None) -> bool:
        """Tell whether more was found, or as much and nearer."""
        return other is None or (self.mean, -self.error) > (other.mean, -other.error)


class Validator:
    """The same fields for every validation of a training.

    Parameters
    ----------
    parts : sequence of Part
        What is kept from learning.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slides.
    mpp : float
        Pixel size in µm.
    count, side : int
        Fields, dealt out to the four levels in turn, and their side in pixels.
    seed : int
        Of the places and transforms.

    Attributes
    ----------
    side : int
        Of the fields: as asked for, or halved as often as takes for one part to have room; the others are left out.

    Raises
    ------
    SlideError
        If no part has room for fields of 32 pixels, or one has no tissue.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        modalities: tuple[ModalityCard, ModalityCard],
        mpp: float,
        *,
        count: int,
        side: int,
        seed: int,
    ) -> None:
        self._modalities, self.side = modalities, side
        readers = [PairReader(part, modalities, mpp) for part in parts]
        while True:
            try:
                self._fields = _drawn(readers, np.random.default_rng([seed, count]), count, self.side)
            except SlideError:
                if self.side // 2 < SMALLEST:
                    raise
                self.side //= 2
            else:
                break

    def validate(self, networks: Mapping[str, DenseUNet], device: Device) -> Validation:
        """Register every field with these networks, by modality."""
        first, second = (Representer(networks[card.modality], card, device) for card in self._modalities)
        errors = self.errors((first, second))
        return Validation(
            tuple(float((level <= FOUND).mean()) for level in errors), float(np.concatenate(errors).mean())
        )

    def errors(self, pair: tuple[Representer, Representer]) -> list[NDArray[np.float64]]:
        """Return the error of every field as a share of the width (see `field_error`), for each level."""
        represent = partial(crop_representation, pair[0]), partial(crop_representation, pair[1])
        return [np.array([field_error(represent, field) for field in fields]) for fields in self._fields]


def _drawn(readers: Sequence[PairReader], rng: np.random.Generator, count: int, side: int) -> list[list[Field]]:
    """Draw fields for each level, from all readers with room for them in turn."""
    roomy = [reader for reader in readers if has_room(reader, side)] or readers
    fields: list[list[Field]] = [[] for _ in LEVELS]
    for number in range(count):
        turn, level = divmod(number, len(LEVELS))
        fields[level].append(draw_field(roomy[turn % len(roomy)], rng, level, side))
    return fields


def representers(model: Model, device: Device) -> tuple[Representer, Representer]:
    """Return those of a model's two modalities."""
    first, second = (load(model, card.modality, device) for card in model.card.modalities)
    return first, second


def crop_representation(representer: Representer, image: Image) -> Image:
    """Return the representation ``(latent, Y, X)`` of a normalised crop ``(C, Y, X)``, continued by reflection."""
    stride = representer.stride
    before = -(-MARGIN // stride) * stride
    after = [before + -size % stride for size in image.shape[1:]]
    padded = np.pad(image, ((0, 0), (before, after[0]), (before, after[1])), mode="reflect")
    inner = np.s_[:, before : before + image.shape[1], before : before + image.shape[2]]
    return np.ascontiguousarray(representer.run(padded)[inner])
