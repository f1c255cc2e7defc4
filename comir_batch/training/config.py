"""The settings of a training: a preset < TOML file < command line; frozen, and every unknown key is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from comir_batch.core.card import Input
from comir_batch.core.config import ExecutionConfig, Section
from comir_batch.core.config_file import merged, read_toml
from comir_batch.core.errors import ConfigError, ModelError, wrong_fields
from comir_batch.representation.network import preset
from comir_batch.representation.store import require_name
from comir_batch.training.critics import Critic
from comir_batch.training.supervision import Supervision

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.card import Architecture

Shares = tuple[float, float, float, float]


class TrainConfig(Section):
    """What is trained, and how.

    Attributes
    ----------
    name : str
        Of the model; empty for the two modalities.
    licence, trained_on : str
        For the card: of the weights, and of the data with its source.
    mpp : float
        Pixel size of the crops in µm; 0 to let the slides decide.
    region : (float, float, float, float)
        Left, top, right and bottom of the part of the fixed slides to learn from, as shares of width and height. The
        rest is never read; it is what the model is measured on.
    validation : float
        Share of the pairs, or of the region where there are fewer than five, that is kept from learning and decides
        when to stop.
    fixed, moving : Input
        How slides become the networks' inputs.
    fixed_photometric, moving_photometric : {"auto", "brightfield", "any"}
        Of colour images: whether the amounts of stains vary in training, and, if all slides look so, whether the model
        takes bright empty glass alone. Auto decides by the slides: all must be 8-bit and bright where they are empty.
        Any is for photographs.
    architecture : {"compact", "paper"}
        Of both networks: the small one of the paper's aerial experiment, or the large one of its biomedical one.
    latent_channels : int
        Of the representation.
    steps, batch, crop : int
        Most optimiser steps, crop pairs in each, and their side in pixels.
    contrast : int
        Side in pixels of the squares, cut from the representations of the crops, that the loss tells apart; 0 for whole
        crops as in the paper. Smaller squares are harder to tell apart: they teach longer, and finer structure.
    coarse : int
        The loss also tells apart squares of twice that side after every so many pixels, along each axis, became their
        mean; 1 leaves that out, as in the paper. Large slides are searched at a coarse level, where fine structure
        alone, such as noise that both images of one exposure share, is gone.
    critic : {"mse", "cosine", "l1"}
        Similarity of two representations.
    temperature : float
        Divides the critic.
    decoupled : bool
        Leave the positive out of the denominator (Yeh et al., 2022) of the outputs' loss; the bottleneck's keeps it.
    decay_l1, decay_l2 : float
        Weights of the activation decay; 0 leaves it out.
    symmetry : {"none", "c4", "d4"}
        Quarter turns, or mirrored ones too, that each crop of each modality undergoes by itself and that are undone on
        its representation.
    supervision : Supervision
        Of the bottleneck: `approach` and `critic`.
    jitter : float
        Standard deviation in pixels of shifts, along each axis, that part the crops of a place. Some teaches networks
        to leave out noise that both images share, as those of one exposure do.
    augmentation : float
        Strength of the change of intensities, stains, sharpness and noise; 1 is usual.
    optimiser : {"adam", "sgd"}
        SGD has momentum 0.9.
    schedule : {"cosine", "constant"}
        Learning rate: risen over a tenth of the steps and then fallen along a cosine, or as it is.
    learning_rate, weight_decay, clip : float
        Gradients of each network are clipped to that norm.
    averaging : float
        Decay of the running average of the weights, which is what is kept; 0 keeps the weights themselves.
    validate_every, validation_fields : int
        Steps between validations, and known transforms in each, a quarter at each of four levels.
    patience : int
        Validations without progress, in the second half of the steps, after which training ends.
    measured_crops : int
        Crops that the model is diagnosed on at the end; a quarter as many known transforms, one in 32 turned all round.
    checkpoint_minutes : float
        How often all that a resumed training needs is written.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    compile : bool
        Whether torch compiles the networks first: a minute or two, and a C++ compiler.
    device : {"auto", "cpu", "cuda"}
        Where the networks run.
    seed, threads : int
        On which the result depends.
    loaders : int
        Threads that read crops ahead; the result does not depend on them.
    check_alignment : bool
        Whether pairs that look misaligned stop the training before it begins.
    execution : ExecutionConfig
        Where slides are rewritten as Zarr before.
    """

    name: str = ""
    licence: str = "not stated"
    trained_on: str = ""
    mpp: float = Field(default=0.0, ge=0)
    region: Shares = (0.0, 0.0, 1.0, 1.0)
    validation: float = Field(default=0.2, gt=0, lt=0.9)
    fixed: Input = Input()
    moving: Input = Input()
    fixed_photometric: Literal["auto", "brightfield", "any"] = "auto"
    moving_photometric: Literal["auto", "brightfield", "any"] = "auto"
    architecture: Literal["compact", "paper"] = "compact"
    latent_channels: int = Field(default=1, ge=1, le=3)
    steps: int = Field(default=1200, ge=1)
    batch: int = Field(default=8, ge=2)
    crop: int = Field(default=128, ge=16)
    contrast: int = Field(default=32, ge=0)
    coarse: int = Field(default=4, ge=1)
    critic: Critic = "mse"
    temperature: float = Field(default=0.1, gt=0)
    decoupled: bool = False
    decay_l1: float = Field(default=0.0, ge=0)
    decay_l2: float = Field(default=0.0, ge=0)
    symmetry: Literal["none", "c4", "d4"] = "d4"
    supervision: Supervision = Supervision()
    jitter: float = Field(default=0.0, ge=0)
    augmentation: float = Field(default=1.0, ge=0, le=3)
    optimiser: Literal["adam", "sgd"] = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=1.0, gt=0)
    averaging: float = Field(default=0.98, ge=0, lt=1)
    validate_every: int = Field(default=150, ge=1)
    validation_fields: int = Field(default=24, ge=4)
    patience: int = Field(default=3, ge=1)
    measured_crops: int = Field(default=192, ge=16)
    checkpoint_minutes: float = Field(default=5.0, ge=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=1, ge=0, lt=2**31)
    threads: int = Field(default=2, ge=1)
    loaders: int = Field(default=1, ge=1)
    check_alignment: bool = True
    execution: ExecutionConfig = ExecutionConfig(executor="serial", device="cpu")

    @field_validator("name")
    @classmethod
    def _of_a_folder(cls, name: str) -> str:
        if name:
            try:
                require_name(name)
            except ModelError as error:
                raise ValueError(str(error)) from error
        return name

    @field_validator("region")
    @classmethod
    def _inside(cls, region: Shares) -> Shares:
        left, top, right, bottom = region
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError("left, top, right and bottom must be shares, 0 <= left < right <= 1 and likewise in y")
        return region

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.critic == "cosine" and self.latent_channels == 1:
            raise ValueError(
                "the cosine over one channel is only +1 or -1: take latent_channels 2 or 3, or another critic"
            )
        if self.contrast > self.crop:
            raise ValueError(f"contrast {self.contrast} is larger than the crop of {self.crop} pixels")
        wide = min(2 * (self.contrast or self.crop), self.crop)
        if wide % self.coarse:
            raise ValueError(f"coarse {self.coarse} must divide {wide}, the side of the coarse squares in pixels")
        stride = 2 ** len(self.network(1).down)
        if self.crop % stride:
            raise ValueError(f"crop {self.crop} must be a multiple of {stride}, the stride of {self.architecture}")
        return self

    def network(self, channels: int) -> Architecture:
        """Return the architecture of a network for so many channels."""
        return preset(self.architecture, in_channels=channels, latent_channels=self.latent_channels)


PRESETS: dict[str, dict[str, Any]] = {
    "compact": {},
    # Settings of the paper's experiments: N = 32 and 736 steps; N = 24 and 160 steps.
    "paper": {
        "architecture": "paper",
        "batch": 32,
        "steps": 736,
        "contrast": 0,
        "coarse": 1,
        "temperature": 0.5,
        "decay_l1": 1e-4,
        "decay_l2": 1e-4,
        "symmetry": "c4",
        "optimiser": "sgd",
        "schedule": "constant",
        "learning_rate": 1e-2,
        "weight_decay": 1e-5,
        "averaging": 0.0,
    },
    "zurich": {
        "latent_channels": 3,
        "batch": 24,
        "steps": 160,
        "contrast": 0,
        "coarse": 1,
        "temperature": 0.1,
        "symmetry": "c4",
        "optimiser": "adam",
        "schedule": "constant",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "averaging": 0.0,
    },
}
"""Whole settings by name: ours, and those of the CoMIR paper's two experiments (Pielawski et al., NeurIPS 2020)."""


def load_train_config(preset: str, path: Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """Lay a TOML file and overrides (nested dicts) over a preset.

    Raises
    ------
    ConfigError
        If there is no such preset, the file is missing or not TOML, or a key or value is wrong.
    """
    if preset not in PRESETS:
        raise ConfigError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    values = {} if path is None else read_toml(path)
    return checked(merged(merged(PRESETS[preset], values), overrides))


def checked(values: dict[str, Any]) -> TrainConfig:
    """Return the settings of nested dicts.

    Raises
    ------
    ConfigError
        If a key or value is wrong; the message names each.
    """
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"wrong settings: {wrong_fields(error)}") from error
