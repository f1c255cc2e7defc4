"""Weights on disk: one safetensors file a model, networks by modality. Pickles are never loaded."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from comir_batch.core.errors import ModelError
from comir_batch.representation.inference import Representer
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.store import WEIGHTS, Model, read_card, save_card, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from comir_batch.core.card import ModelCard
    from comir_batch.representation.device import Device
    from comir_batch.representation.inference import Precision

# Threads that ask at once get one network between them, not one each.
_LOADING = Lock()


def load(model: Model, modality: str, device: Device = "auto", precision: Precision = "float32") -> Representer:
    """Return the representer of one modality; the same one when asked again in the same process.

    Raises
    ------
    ModelError
        If the model does not know the modality, or its weights are missing, damaged or of another network.
    """
    with _LOADING:
        return _load(model.folder, model.card.weights_sha256, modality, device, precision)


def read_network(model: Model, modality: str) -> DenseUNet:
    """Read the network of one modality from its file.

    Raises
    ------
    ModelError
        As `load`.
    """
    card, tensors = model.card, _read_weights(model.folder / WEIGHTS, model.card.weights_sha256)
    prefix = f"{modality}."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    architecture = card.modality(modality).architecture
    try:
        with torch.device("meta"):  # which allocates nothing, whatever widths a card has
            DenseUNet(architecture).load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise ModelError(f"the weights of model {card.name!r} do not fit its card: {reason}") from error
    network = DenseUNet(architecture)
    network.load_state_dict(state)
    return network


def save(folder: Path, card: ModelCard, networks: Mapping[str, DenseUNet]) -> ModelCard:
    """Write the networks, by modality, and their card, the card last; return it with the digest of the weights."""
    tensors = {
        f"{modality}.{name}": tensor.detach().cpu().contiguous()
        for modality, network in sorted(networks.items())
        for name, tensor in sorted(network.state_dict().items())
    }
    data = save_tensors(tensors)
    signed = card.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS, data)
    return save_card(folder, signed)


@lru_cache(maxsize=8)
def _load(folder: Path, digest: str, modality: str, device: Device, precision: Precision) -> Representer:
    card = read_card(folder)
    if not card.knows(modality):
        known = ", ".join(m.modality for m in card.modalities)
        raise ModelError(f"model {card.name!r} does not know the modality {modality!r}; it knows {known}")
    network = read_network(Model(card.model_copy(update={"weights_sha256": digest}), folder), modality)
    return Representer(network, card.modality(modality), device, precision)


def _read_weights(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the weights {path}: {error.strerror}; install the model again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ModelError(f"{path} is damaged: its SHA-256 is {found}, its card says {digest}; install the model again")
    try:
        tensors: dict[str, Tensor] = load_tensors(data)
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error
    return tensors
