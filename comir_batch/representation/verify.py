"""Whether a model is what its card says, and computes what it should; it needs no slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from comir_batch.core.check import failed, ok
from comir_batch.core.errors import ModelError
from comir_batch.representation.inference import Representer
from comir_batch.representation.store import WEIGHTS
from comir_batch.representation.weights import read_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.card import ModalityCard
    from comir_batch.core.check import Check
    from comir_batch.representation.network import DenseUNet
    from comir_batch.representation.store import Model

_TOLERANCE = 1e-4


def verify(model: Model) -> Iterator[Check]:
    """Yield what is found of each network of a model: its file, its numbers, its halo and its blocks.

    The halo is checked by an impulse: noise in one stride of pixels may change the output no further away than the
    halo. Blocks are cut from a strip with a halo on each side and must equal the strip's output to 1e-4 of its largest
    value. Strips are one stride high, which keeps the largest networks quick; all kernels are square.
    """
    for part in model.card.modalities:
        try:
            network = read_network(model, part.modality)
        except ModelError as error:
            yield failed(f"{part.modality}: weights", str(error))
            continue
        yield ok(f"{part.modality}: weights", f"{WEIGHTS} has the digest of the card, and the network fits")
        numbers = [_finite(network, part), _variances(network, part)]
        yield from numbers
        if all(check.state == "ok" for check in numbers):
            representer = Representer(network, part, "cpu")
            yield _halo(representer)
            yield _blocks(representer)


def _finite(network: DenseUNet, part: ModalityCard) -> Check:
    name = f"{part.modality}: numbers"
    bad = [key for key, tensor in network.state_dict().items() if not torch.isfinite(tensor).all()]
    if bad:
        return failed(name, f"{bad[0]} is not finite; train the model anew, or fetch it again")
    return ok(name, f"{sum(tensor.numel() for tensor in network.parameters()):,} parameters, all finite")


def _variances(network: DenseUNet, part: ModalityCard) -> Check:
    name = f"{part.modality}: batch norms"
    norms = [(key, tensor) for key, tensor in network.named_buffers() if key.endswith("running_var")]
    bad = [key for key, variances in norms if not (variances > 0).all()]
    if bad:
        return failed(name, f"{bad[0]} has a variance that is not positive; train the model anew, or fetch it again")
    return ok(name, f"the variances of all {len(norms)} are positive")


def _halo(representer: Representer) -> Check:
    name, (halo, stride) = f"{representer.card.modality}: halo", (representer.halo, representer.stride)
    start = halo + stride
    image = _strip(representer, 2 * start + stride)
    other = image.copy()
    other[:, :, start : start + stride] = 1 - other[:, :, start : start + stride]
    changed = np.flatnonzero((representer.run(image) != representer.run(other)).any(axis=(0, 1)))
    if not changed.size:
        return failed(name, "the output does not depend on the image; train the model anew")
    reach = max(start - int(changed[0]), int(changed[-1]) - (start + stride - 1))
    if reach > halo:
        return failed(name, f"pixels change the output {reach} px away, beyond the halo of {halo} px; report this")
    return ok(name, f"{halo} px suffice: an impulse reaches {reach} px")


def _blocks(representer: Representer) -> Check:
    name, (halo, stride) = f"{representer.card.modality}: blocks", (representer.halo, representer.stride)
    image = _strip(representer, 2 * halo + 4 * stride)
    whole = representer.run(image)
    worst = 0.0
    for start in range(halo, halo + 4 * stride, 2 * stride):
        block = representer.run(np.ascontiguousarray(image[:, :, start - halo : start + 2 * stride + halo]))
        inside = slice(start, start + 2 * stride)
        worst = max(worst, float(np.abs(block[:, :, halo : halo + 2 * stride] - whole[:, :, inside]).max()))
    worst /= float(np.abs(whole).max()) or 1.0
    if not worst <= _TOLERANCE:
        return failed(name, f"blocks differ from the whole by {worst:.1e} of its largest value; report this")
    return ok(name, f"equal the whole to {worst:.1e} of its largest value")


def _strip(representer: Representer, width: int) -> NDArray[np.float32]:
    channels = representer.card.architecture.in_channels
    return np.random.default_rng(0).random((channels, representer.stride, width), dtype=np.float32)
