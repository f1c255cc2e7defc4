"""Training a pair of networks on aligned slides, as CoMIR does it; the same seed, machine and threads give the same."""

from __future__ import annotations

import platform
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from comir_batch import __version__
from comir_batch.core.card import ModelCard
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.weights import save
from comir_batch.training.crops import PairReader, disturbed
from comir_batch.training.digest import sha256
from comir_batch.training.loss import activation_decay, info_nce
from comir_batch.training.symmetry import turn, turn_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from comir_batch.core.card import ModalityCard
    from comir_batch.training.crops import TrainingPair

_SETTINGS = (
    "steps",
    "batch",
    "crop",
    "contrast",
    "temperature",
    "decay_l1",
    "decay_l2",
    "learning_rate",
    "weight_decay",
    "clip",
    "symmetry",
    "disturbance",
    "precision",
    "seed",
    "threads",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What is trained, and how.

    Attributes
    ----------
    name, trained_on, held_out, licence : str
        For the card.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slides.
    mpp : float
        Pixel size of the crops in µm.
    steps, batch, crop : int
        Optimiser steps, crop pairs in each, and their side in pixels.
    contrast : int
        Side in pixels of the squares, cut from the representations of the crops, that the loss tells apart; 0 for whole
        crops as in the paper. Smaller squares are harder to tell apart: they teach longer, and finer structure.
    temperature : float
        Of the contrastive loss.
    decay_l1, decay_l2 : float
        Weights of the activation decay; 0 leaves it out.
    learning_rate, weight_decay, clip : float
        Adam with a one-cycle schedule up to that rate; gradients of each network are clipped to that norm.
    symmetry : {"c4", "d4"}
        Quarter turns, or mirrored ones too, that each crop of each modality undergoes by itself and that are undone on
        its representation.
    disturbance : float
        Strength of the change of intensities.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    seed, threads : int
        On which the result depends.
    """

    name: str
    modalities: tuple[ModalityCard, ModalityCard]
    mpp: float
    trained_on: str
    held_out: str
    licence: str
    steps: int = 300
    batch: int = 24
    crop: int = 128
    contrast: int = 0
    temperature: float = 0.1
    decay_l1: float = 0.0
    decay_l2: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    symmetry: Literal["c4", "d4"] = "d4"
    disturbance: float = 1.0
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 1
    threads: int = 2


def train(
    pairs: Sequence[TrainingPair],
    config: TrainConfig,
    out: Path,
    on_step: Callable[[int, float], None] | None = None,
) -> ModelCard:
    """Train on aligned pairs and write the model; return its card.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        At least one.
    config : TrainConfig
        What and how.
    out : Path
        Folder of the model: weights.safetensors and card.json.
    on_step : callable, optional
        Told the number of each step done and its loss.

    Raises
    ------
    SlideError
        If a slide cannot be used, or its part is smaller than a crop.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(PairReader(pair, config.modalities, config.mpp)) for pair in pairs]
        stack.enter_context(_repeatable(config))
        networks = [DenseUNet(card.architecture) for card in config.modalities]
        for step, loss in enumerate(_steps(networks, readers, config), start=1):
            if on_step is not None:
                on_step(step, loss)
    card = _card(pairs, config)
    return save(out, card, {m.modality: n for m, n in zip(config.modalities, networks, strict=True)})


@contextmanager
def _repeatable(config: TrainConfig) -> Iterator[None]:
    """Seed torch and fix its threads; leave both as they were afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _steps(networks: Sequence[DenseUNet], readers: Sequence[PairReader], config: TrainConfig) -> Iterator[float]:
    rng = np.random.default_rng(config.seed)
    for network in networks:
        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    parameters = [parameter for network in networks for parameter in network.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps)
    for _ in range(config.steps):
        optimiser.zero_grad()
        loss = _loss(networks, draw_batch(readers, config, rng), config, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        for network in networks:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        optimiser.step()
        schedule.step()
        yield float(loss.detach())


def draw_batch(readers: Sequence[PairReader], config: TrainConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return crops of both modalities at the same places, each ``(batch, C, crop, crop)`` float32."""
    fixed, moving = [], []
    for _ in range(config.batch):
        reader = readers[int(rng.integers(len(readers)))]
        first, second = reader.read(reader.draw(rng, config.crop), config.crop)
        fixed.append(disturbed(first, rng, config.disturbance))
        moving.append(disturbed(second, rng, config.disturbance))
    return torch.from_numpy(np.stack(fixed)), torch.from_numpy(np.stack(moving))


def _loss(
    networks: Sequence[DenseUNet], batch: tuple[Tensor, Tensor], config: TrainConfig, rng: np.random.Generator
) -> Tensor:
    outputs = [_turned_output(network, crops, config, rng) for network, crops in zip(networks, batch, strict=True)]
    squares = [cut(output, config.contrast or config.crop) for output in outputs]
    loss = info_nce(squares[0], squares[1], config.temperature)
    if config.decay_l1:
        loss = loss + config.decay_l1 * activation_decay(outputs[0], outputs[1], 1)
    if config.decay_l2:
        loss = loss + config.decay_l2 * activation_decay(outputs[0], outputs[1], 2)
    return loss


def _turned_output(network: DenseUNet, crops: Tensor, config: TrainConfig, rng: np.random.Generator) -> Tensor:
    """Turn every crop by itself, represent it, and turn its representation back."""
    turns = rng.integers(8 if config.symmetry == "d4" else 4, size=len(crops))
    turned = torch.stack([turn(crop, int(k)) for crop, k in zip(crops, turns, strict=True)])
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
        outputs = network(turned.contiguous(memory_format=torch.channels_last)).float()
    return torch.stack([turn_back(output, int(k)) for output, k in zip(outputs, turns, strict=True)])


def cut(images: Tensor, side: int) -> Tensor:
    """Cut ``(N, C, Y, X)`` into squares, ``(M, C, side, side)``; what is left over is taken from the borders evenly."""
    rows, columns = images.shape[2] // side, images.shape[3] // side
    top, left = (images.shape[2] - rows * side) // 2, (images.shape[3] - columns * side) // 2
    inner = images[:, :, top : top + rows * side, left : left + columns * side]
    return inner.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _card(pairs: Sequence[TrainingPair], config: TrainConfig) -> ModelCard:
    paths = sorted({spec.path for pair in pairs for spec in (pair.fixed, pair.moving)})
    versions = {"comir-batch": __version__, "torch": str(torch.__version__), "machine": platform.machine()}
    return ModelCard(
        name=config.name,
        modalities=config.modalities,
        mpp=config.mpp,
        slides=len({(pair.fixed.path.resolve(), pair.moving.path.resolve()) for pair in pairs}),
        trained_on=config.trained_on,
        held_out=config.held_out,
        licence=config.licence,
        data_sha256={path.name: sha256(path) for path in paths},
        training={**{name: getattr(config, name) for name in _SETTINGS}, **versions},
        weights_sha256="",
    )
