"""Model cards: what a pair of networks is, what it learnt from, and which images it accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from comir_batch.core.slide import Photometric

if TYPE_CHECKING:
    from pydantic import SerializerFunctionWrapHandler


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    # Fields that came later, and what they are where nothing is said; they are then not written, so that cards, and the
    # fingerprints of work done with them, stay what they were.
    later: ClassVar[dict[str, object]] = {}

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = write(self)
        return {name: value for name, value in written.items() if name not in self.later or value != self.later[name]}


class Architecture(_Frozen):
    """A dense U-Net ("tiramisu") as in CoMIR (Pielawski et al., NeurIPS 2020).

    Attributes
    ----------
    in_channels, latent_channels : int
        Channels of the input and of the representation.
    init_filters : int
        Channels after the first convolution.
    down, up : tuple of int
        Dense layers in each block on the way down and up; as many blocks each.
    bottleneck : int
        Dense layers of the bottleneck.
    growth : int
        Channels that each dense layer adds.
    compression : float
        Share of channels that a transition down keeps.
    dropout : float
        Rate while training.
    """

    in_channels: int = Field(ge=1)
    latent_channels: int = Field(default=1, ge=1)
    init_filters: int = Field(default=16, ge=1)
    down: tuple[int, ...] = (2, 2, 2)
    bottleneck: int = Field(default=3, ge=1)
    up: tuple[int, ...] = (2, 2, 2)
    growth: int = Field(default=12, ge=1)
    compression: float = Field(default=1.0, gt=0, le=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _balanced(self) -> Architecture:
        if len(self.down) != len(self.up) or not self.down:
            raise ValueError(f"down {self.down} and up {self.up} need the same number of blocks, at least one")
        return self


class Input(_Frozen):
    """How a slide of one modality becomes the network's input; the same for a whole slide, never per tile.

    Attributes
    ----------
    reduction : {"none", "max", "mean"}
        How the slide's channels become the network's: as they are, or reduced to one.
    scaling : {"percentiles", "full"}
        What maps to 0 and 1: percentiles of the slide's tissue pixels, or 0 and a fixed value.
    low, high : float
        The percentiles.
    full : float or None
        The fixed value; None for the largest of the slide's integer type, and 1 for floats.
    log : bool
        Whether log(1 + x) follows.
    """

    later = {"scaling": "percentiles", "full": None}

    reduction: Literal["none", "max", "mean"] = "none"
    scaling: Literal["percentiles", "full"] = "percentiles"
    full: float | None = Field(default=None, gt=0)
    low: float = Field(default=1.0, ge=0, lt=100)
    high: float = Field(default=99.5, gt=0, le=100)
    log: bool = False

    @model_validator(mode="after")
    def _ascending(self) -> Input:
        if self.low >= self.high:
            raise ValueError(f"the percentile low, {self.low:g}, must be below high, {self.high:g}")
        return self


class ModalityCard(_Frozen):
    """One of the networks.

    Attributes
    ----------
    modality : str
        What it represents; the prefix of its weights in the safetensors file.
    architecture : Architecture
        Its widths and depths.
    input : Input
        How a slide becomes its input.
    photometric : {"brightfield", "dark", ""}
        Whether empty glass is bright or dark on the slides that it takes; empty if that is not known.
    """

    later = {"photometric": ""}

    modality: str
    architecture: Architecture
    input: Input = Input()
    photometric: Photometric | Literal[""] = ""


def are_distinct(first: str, second: str) -> bool:
    """Tell whether two modalities may share a model: the names of their weights begin with theirs and a dot."""
    return not (f"{first}.".startswith(f"{second}.") or f"{second}.".startswith(f"{first}."))


class ModelCard(_Frozen):
    """What stands beside the weights.

    Attributes
    ----------
    name : str
        By which the manifest asks for it.
    modalities : tuple of ModalityCard
        Its networks.
    mpp : float
        Pixel size in µm that it was trained at.
    mpp_tolerance : float
        Largest factor by which a slide's working pixel size may differ.
    slides : int
        Number of slides of each modality that it learnt from; a model of one slide never gives `accept` alone.
    trained_on : str
        Data and regions, with their source and licence.
    held_out : str
        What it has not seen.
    data_sha256 : dict
        Identity of each training file, by pair, side and name: its SHA-256 if it has at most 64 MiB (see `io.digest`).
    training : dict
        Settings, seed and versions of the training.
    metrics : dict
        Held-out figures, with the command that gives them.
    licence : str
        Of the weights.
    weights_sha256 : str
        Digest of the safetensors file.
    """

    format: Literal["comir-batch model"] = "comir-batch model"
    version: Literal[1] = 1
    name: str
    modalities: tuple[ModalityCard, ModalityCard]
    mpp: float = Field(gt=0)
    mpp_tolerance: float = Field(default=1.5, gt=1)
    slides: int = Field(ge=1)
    trained_on: str
    held_out: str
    data_sha256: dict[str, str] = {}
    training: dict[str, str | int | float | bool] = {}
    metrics: dict[str, str | int | float] = {}
    licence: str
    weights_sha256: str

    @model_validator(mode="after")
    def _distinct(self) -> ModelCard:
        first, second = (card.modality for card in self.modalities)
        if not are_distinct(first, second):
            raise ValueError(
                f"modalities {first!r} and {second!r} cannot be told apart; a card has two that differ, and neither "
                "may be the other with a dot and more behind it, since names of weights begin so"
            )
        channels = {card.architecture.latent_channels for card in self.modalities}
        if len(channels) != 1:
            raise ValueError(f"the networks have {sorted(channels)} latent channels; both need the same number")
        return self

    def knows(self, *modalities: str) -> bool:
        """Tell whether each of the modalities has a network here."""
        known = {card.modality for card in self.modalities}
        return all(modality in known for modality in modalities)

    def modality(self, name: str) -> ModalityCard:
        """Return the card of one modality; KeyError if it has none."""
        for card in self.modalities:
            if card.modality == name:
                return card
        raise KeyError(name)
