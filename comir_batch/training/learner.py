"""Two networks that learn: one optimiser step at a time, with all state in named tensors."""

from __future__ import annotations

import math
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from comir_batch.core.errors import ConfigError
from comir_batch.representation.network import DenseUNet
from comir_batch.training.loss import activation_decay, info_nce
from comir_batch.training.supervision import bottleneck_loss, wanted
from comir_batch.training.symmetry import draw, turn_each, turn_each_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from comir_batch.core.card import ModalityCard
    from comir_batch.training.batches import Batch
    from comir_batch.training.config import TrainConfig

_TURNS = 1  # of the streams of chance that a step has; crops have the other


class Learner:
    """Networks, their running average and the optimiser.

    Parameters
    ----------
    modalities : (ModalityCard, ModalityCard)
        What the networks are.
    config : TrainConfig
        How they learn.
    device : {"cpu", "cuda"}
        Where.
    """

    def __init__(self, modalities: tuple[ModalityCard, ModalityCard], config: TrainConfig, device: str) -> None:
        torch.manual_seed(config.seed)
        self._config, self._device = config, device
        self._modalities = modalities
        self._networks = [DenseUNet(card.architecture).train().to(device) for card in modalities]
        for network in self._networks:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self._average = {name: tensor.clone() for name, tensor in self._weights().items()}
        self._optimiser = _optimiser(self._networks, config)
        compiled = torch.compile if config.compile else (lambda function: function)
        self._forward = [compiled(network.with_bottleneck) for network in self._networks]

    def step(self, batch: Batch, number: int) -> float:
        """Learn from a batch; return the loss.

        Raises
        ------
        ConfigError
            If the loss is not finite any more.
        """
        torch.manual_seed((self._config.seed << 32) + number)  # dropout
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._config, number)
        self._optimiser.zero_grad()
        loss = self._loss(batch, number)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(f"the loss is {value} at step {number}; lower learning_rate, or raise temperature")
        loss.backward()  # type: ignore[no-untyped-call]
        for network in self._networks:
            torch.nn.utils.clip_grad_norm_(network.parameters(), self._config.clip)
        self._optimiser.step()
        self._update_average(number)
        return value

    def networks(self, weights: Mapping[str, Tensor]) -> dict[str, DenseUNet]:
        """Return networks by modality, in evaluation mode on the CPU, with weights as `average` gives them."""
        return {card.modality: _network(card, weights, k) for k, card in enumerate(self._modalities)}

    @property
    def average(self) -> dict[str, Tensor]:
        """A copy of the running average of weights and batch statistics, which is what a model is made of."""
        return {name: _kept(tensor) for name, tensor in self._average.items()}

    def state(self) -> dict[str, Tensor]:
        """Return all that goes on learning needs, by name."""
        state = {f"network.{name}": tensor for name, tensor in self._weights().items()}
        state |= {f"average.{name}": tensor for name, tensor in self._average.items()}
        for index, values in self._optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        return {name: _kept(tensor) for name, tensor in state.items()}

    def resume(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        with torch.no_grad():
            for name, tensor in self._weights().items():
                tensor.copy_(state[f"network.{name}"])
            for name, tensor in self._average.items():
                tensor.copy_(state[f"average.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name in state:
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = state[name].clone()
        fresh = self._optimiser.state_dict()
        self._optimiser.load_state_dict({"state": moments, "param_groups": fresh["param_groups"]})

    def _weights(self) -> dict[str, Tensor]:
        return {
            f"{k}.{name}": tensor
            for k, network in enumerate(self._networks)
            for name, tensor in network.state_dict().items()
        }

    def _update_average(self, number: int) -> None:
        # A short memory at first, lest the random start be remembered.
        decay = min(self._config.averaging, (1 + number) / (10 + number))
        for name, tensor in self._weights().items():
            if tensor.is_floating_point():
                self._average[name].lerp_(tensor, 1 - decay)
            else:
                self._average[name].copy_(tensor)

    def _loss(self, batch: Batch, number: int) -> Tensor:
        rng = np.random.default_rng([self._config.seed, number, _TURNS])
        config = self._config
        (first, inner_first), (second, inner_second) = (
            self._seen(k, crops, draw(config.symmetry, len(crops), rng)) for k, crops in enumerate(batch)
        )
        outputs, inner = wanted(config.supervision, number, config.steps)
        loss = first.new_zeros(())
        if outputs:
            for squares in told_apart(first, second, config):
                loss = loss + info_nce(*squares, config.temperature, config.critic, decoupled=config.decoupled)
            if config.decay_l1:
                loss = loss + config.decay_l1 * activation_decay(first, second, 1)
            if config.decay_l2:
                loss = loss + config.decay_l2 * activation_decay(first, second, 2)
        if inner:
            loss = loss + bottleneck_loss(inner_first, inner_second, config.temperature, config.supervision.critic)
        return loss

    def _seen(self, k: int, crops: Tensor, turns: NDArray[np.integer]) -> tuple[Tensor, Tensor]:
        """Turn every crop by itself, represent it, and turn its representation and bottleneck back."""
        turned = turn_each(crops, turns).to(self._device, memory_format=torch.channels_last)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._config.precision == "bfloat16"):
            output, inner = self._forward[k](turned)
        return turn_each_back(output.float(), turns), turn_each_back(inner.float(), turns)


def require_compiler() -> None:
    """Refuse to let torch compile networks where there is no compiler, which it looks for as late as the first step.

    Raises
    ------
    ConfigError
        If there is none.
    """
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is None:
        raise ConfigError(f"compile needs a C++ compiler, and there is no {name}: install one, or leave compile out")


def learning_rate(config: TrainConfig, number: int) -> float:
    """Return the learning rate of a step: constant, or risen linearly for a tenth of the steps, then a cosine to 0."""
    if config.schedule == "constant":
        return config.learning_rate
    rise = max(config.steps // 10, 1)
    if number < rise:
        return config.learning_rate * (number + 1) / rise
    return config.learning_rate * (1 + math.cos(math.pi * (number - rise) / max(config.steps - rise, 1))) / 2


def told_apart(first: Tensor, second: Tensor, config: TrainConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what the loss compares of two representations ``(N, C, Y, X)``: squares of pixels, then of coarse ones."""
    side = config.contrast or config.crop
    yield cut(first, side), cut(second, side)
    if config.coarse > 1:
        wide = min(2 * side, config.crop) // config.coarse
        yield cut(avg_pool2d(first, config.coarse), wide), cut(avg_pool2d(second, config.coarse), wide)


def cut(images: Tensor, side: int) -> Tensor:
    """Cut ``(N, C, Y, X)`` into squares, ``(M, C, side, side)``; what is left over is taken from the borders evenly."""
    rows, columns = images.shape[2] // side, images.shape[3] // side
    top, left = (images.shape[2] - rows * side) // 2, (images.shape[3] - columns * side) // 2
    inner = images[:, :, top : top + rows * side, left : left + columns * side]
    return inner.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


def _optimiser(networks: Sequence[DenseUNet], config: TrainConfig) -> torch.optim.Optimizer:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def _kept(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU in the order of its axes, as files want it."""
    return tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)


def _network(card: ModalityCard, weights: Mapping[str, Tensor], k: int) -> DenseUNet:
    prefix = f"{k}."
    network = DenseUNet(card.architecture)
    network.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    )
    return network.eval()
