"""Models on disk: a folder with ``weights.safetensors`` and ``card.json`` each. Pickles are never loaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

import comir_batch.models
from comir_batch.core.card import ModelCard
from comir_batch.core.errors import ModelError
from comir_batch.representation.inference import Device, Precision, Representer
from comir_batch.representation.network import DenseUNet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

WEIGHTS, CARD = "weights.safetensors", "card.json"


@dataclass(frozen=True)
class Model:
    """A model's card and the folder that it lies in; small and picklable."""

    card: ModelCard
    folder: Path


def list_models(extra_dirs: Iterable[Path] = ()) -> tuple[ModelCard, ...]:
    """Return the cards of the shipped models and of those in other folders of models, by name.

    Raises
    ------
    ModelError
        If a card cannot be read.
    """
    return tuple(model.card for model in _models(extra_dirs))


def is_model(folder: Path) -> bool:
    """Tell whether a folder is a model's: whether a card lies in it."""
    return (folder / CARD).is_file()


def find_model(name_or_folder: str | Path, extra_dirs: Iterable[Path] = ()) -> Model:
    """Return a model by its name, or by its folder.

    Parameters
    ----------
    name_or_folder : str or Path
        A text without a separator of folders is the name of a known model if there is such a one, whatever lies in the
        current directory; ``./name`` is the folder. A Path is a folder.
    extra_dirs : iterable of Path
        Folders of models, besides the shipped ones.

    Raises
    ------
    ModelError
        If there is none; the message lists those that there are.
    """
    known = _models(extra_dirs)
    if isinstance(name_or_folder, str):
        for model in known:
            if model.card.name == name_or_folder:
                return model
    folder = Path(name_or_folder).expanduser()
    if is_model(folder):
        return Model(read_card(folder), folder.resolve())
    names = ", ".join(model.card.name for model in known) or "none"
    raise ModelError(f"there is no model {str(name_or_folder)!r}; there are: {names}; or give a folder with a {CARD}")


def load(model: Model, modality: str, device: Device = "auto", precision: Precision = "float32") -> Representer:
    """Return the representer of one modality; the same one when asked again in the same process.

    Raises
    ------
    ModelError
        If the model does not know the modality, or its weights are missing, damaged or of another network.
    """
    return _load(model.folder, model.card.weights_sha256, modality, device, precision)


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model's folder.

    Raises
    ------
    ModelError
        If it is missing, or not a card of this version.
    """
    try:
        return ModelCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read the model card {folder / CARD}: {error.strerror}; check the folder") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ModelError(f"{folder / CARD} is not a model card of version 1: {wrong}; train the model anew") from error


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
    _write(folder / WEIGHTS, data)
    return save_card(folder, signed)


def save_card(folder: Path, card: ModelCard) -> ModelCard:
    """Write the card of a model's folder and return it."""
    _write(folder / CARD, (card.model_dump_json(indent=2) + "\n").encode())
    return card


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def _models(extra_dirs: Iterable[Path]) -> list[Model]:
    shipped = Path(comir_batch.models.__file__).parent
    folders = [path.parent for parent in (shipped, *extra_dirs) for path in parent.glob(f"*/{CARD}")]
    return sorted((Model(read_card(folder), folder.resolve()) for folder in folders), key=lambda m: m.card.name)


@lru_cache(maxsize=8)
def _load(folder: Path, digest: str, modality: str, device: Device, precision: Precision) -> Representer:
    card = read_card(folder)
    if not card.knows(modality):
        known = ", ".join(m.modality for m in card.modalities)
        raise ModelError(f"model {card.name!r} does not know the modality {modality!r}; it knows {known}")
    tensors = _read_weights(folder / WEIGHTS, digest)
    prefix = f"{modality}."
    state = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    network = DenseUNet(card.modality(modality).architecture)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise ModelError(f"the weights of model {card.name!r} do not fit its card: {reason}") from error
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
