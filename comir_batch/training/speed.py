"""What the speed of training and inference is compared with: the loss by a loop over pairs, and the network alone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from comir_batch.core.card import ModalityCard
from comir_batch.core.geometry import Region
from comir_batch.representation.inference import Representer
from comir_batch.representation.network import DenseUNet, preset
from comir_batch.representation.normalise import Range
from comir_batch.representation.weights import load, read_network
from comir_batch.training.critics import CRITICS
from comir_batch.training.loss import info_nce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from comir_batch.representation.device import Device
    from comir_batch.representation.store import Model
    from comir_batch.training.critics import Critic

    Loss = Callable[[Tensor, Tensor, float, Critic], Tensor]

_TEMPERATURE = 0.5

_ONE_PAIR: dict[Critic, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda x, y: -(x - y).square().mean(),
    "cosine": lambda x, y: ((x * y).sum(0) / (x.square().sum(0) * y.square().sum(0)).sqrt()).mean(),
    "l1": lambda x, y: -(x - y).abs().mean(),
}


@dataclass(frozen=True, slots=True)
class Contest:
    """The same work done in two ways, each ready to be called again and again.

    Attributes
    ----------
    work : str
        What is done.
    ours, other : callable
        As comir-batch does it, and what it is compared with.
    note : str
        What the other way is, and what went in.
    """

    work: str
    ours: Callable[[], object]
    other: Callable[[], object]
    note: str


@contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Let torch compute with so many threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def looped_info_nce(first: Tensor, second: Tensor, temperature: float, critic: Critic) -> Tensor:
    """Return what `info_nce` does, by a loop over the pairs of crops, each pair once."""
    crops = [*first, *second]
    count, scores = len(crops), {}
    for i, x in enumerate(crops):
        for j in range(i):
            scores[i, j] = scores[j, i] = _ONE_PAIR[critic](x, crops[j]) / temperature
    losses = []
    for i in range(count):
        others = torch.stack([scores[i, j] for j in range(count) if j != i])
        losses.append(others.logsumexp(dim=0) - scores[i, (i + count // 2) % count])
    return torch.stack(losses).mean()


def contests(batch: int = 32, side: int = 128, image: int = 1024) -> Iterator[Contest]:
    """Make ready one contest after the other; what one holds in memory goes with it.

    Parameters
    ----------
    batch, side : int
        Pairs of crops in a step, and the crops' side in pixels.
    image : int
        Side in pixels of the image that is represented.
    """
    torch.manual_seed(0)
    for critic in CRITICS:
        yield _loss(critic, batch, side)
    yield _training(batch, side)
    yield from _inference(image)


def _loss(critic: Critic, batch: int, side: int) -> Contest:
    channels = 3 if critic == "cosine" else 1
    outputs = [torch.randn(batch, channels, side, side).requires_grad_() for _ in range(2)]
    return _steps(f"loss, {critic}", lambda: outputs, critic, f"{batch} pairs of {channels} x {side} x {side}")


def _steps(work: str, forward: Callable[[], Sequence[Tensor]], critic: Critic, note: str) -> Contest:
    def step(loss: Loss) -> None:
        first, second = forward()
        loss(first, second, _TEMPERATURE, critic).backward()  # type: ignore[no-untyped-call]

    return Contest(work, lambda: step(info_nce), lambda: step(looped_info_nce), f"beside a loop over pairs; {note}")


def _training(batch: int, side: int) -> Contest:
    networks = [DenseUNet(preset("compact")).train() for _ in range(2)]
    for network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    crops = [torch.rand(batch, 1, side, side).contiguous(memory_format=torch.channels_last) for _ in networks]

    def forward() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            outputs = [network(images) for network, images in zip(networks, crops, strict=True)]
        return [output.float() for output in outputs]

    note = f"{batch} pairs of {side} x {side}, two compact networks forward and backward, bfloat16"
    return _steps("training step, mse", forward, "mse", note)


def _inference(side: int) -> Iterator[Contest]:
    """Compare blocks, and reading, scaling, reflecting, cutting and putting together, with nothing but the network."""
    architecture = preset("compact")
    network = DenseUNet(architecture).eval()
    subject = Representer(network, ModalityCard(modality="any", architecture=architecture), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side), np.uint8)
    region = Region(0, 0, side, side)

    def ours() -> object:
        return subject.represent(lambda seen: pixels[:, *seen.slices], (side, side), region, [Range(0, 255)])

    count, tile = tiles_of(subject, side)
    for number, seen, name in ((count**2, tile, "tiles"), (1, side + 2 * subject.halo, "one pass")):
        inputs = [torch.rand(1, 1, seen, seen).contiguous(memory_format=torch.channels_last) for _ in range(number)]
        note = (
            f"beside the network alone on {number} x {seen} x {seen} ready inputs; {side} x {side} pixels come out, "
            f"ours puts {count**2} x {tile} x {tile} in, float32"
        )
        yield Contest(f"inference, {name}", ours, lambda inputs=inputs: _run(network, inputs), note)  # type: ignore[misc]


def tiles_of(subject: Representer, side: int) -> tuple[int, int]:
    """Return into how many tiles a block is cut along an axis, and their length in pixels with the halo."""
    count = -(-side // subject.tile)
    return count, -(-side // (count * subject.stride)) * subject.stride + 2 * subject.halo


def network_alone(
    model: Model, modality: str, device: Device, blocks: Sequence[tuple[int, int]]
) -> Callable[[], object]:
    """Return what runs nothing but a model's network on random tiles that are on the device already.

    Parameters
    ----------
    model : Model
        With its weights.
    modality : str
        Which of its networks.
    device : {"auto", "cpu", "cuda"}
        Where it runs.
    blocks : sequence of (int, int)
        ``(height, width)`` of the blocks that the stage represents, which start on the network's stride.
    """
    subject = load(model, modality, device)
    network = read_network(model, modality).eval().requires_grad_(requires_grad=False).to(subject.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    inputs = [
        torch.rand(1, subject.card.architecture.in_channels, height, width)
        .contiguous(memory_format=torch.channels_last)
        .to(subject.device)
        for (rows, height), (columns, width) in ((tiles_of(subject, h), tiles_of(subject, w)) for h, w in blocks)
        for _ in range(rows * columns)
    ]
    return lambda: [output.cpu() for output in _run(network, inputs)]


def _run(network: DenseUNet, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.inference_mode():
        return [network(image) for image in inputs]
