"""Makes a model of a checkpoint of the method's authors: two pickled networks, ``{"modelA": ..., "modelB": ...}``.

The checkpoint is read without running anything in it (`inert_pickle`). The architecture is inferred from the tensors'
shapes; then every part of the pickled network, by name and kind, must be what our network of that architecture has.
Names of parts are those of the authors' `DenseUNet` (github MIDA-group/CoMIR, models/tiramisu.py).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from torch import nn

from comir_batch.core.card import Architecture, Input, ModalityCard, ModelCard
from comir_batch.core.errors import ModelError, wrong_fields
from comir_batch.representation.inert_pickle import Record, read_checkpoint, tensor
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.store import is_model, require_name
from comir_batch.representation.weights import save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

# The authors' names of parts, and ours; `upsampling_layer` is a level that ours has not.
_OURS = {
    "conv_init": "stem",
    "layers_down": "down_blocks",
    "transitions_down": "down_steps",
    "layers_up": "up_blocks",
    "transitions_up": "up_steps",
    "final_conv": "head",
    "batchnorm": "0",
    "relu": "1",
    "conv": "2",
    "dropout": "3",
    "pool": "4",
    "upsampling_layer": "",
}
# Attributes of parts that no tensor tells of.
_WANTED: dict[str, dict[str, object]] = {
    "Conv2d": {"stride": (1, 1), "dilation": (1, 1), "groups": 1},
    "BatchNorm2d": {"eps": 1e-5},
    "MaxPool2d": {"kernel_size": 2, "stride": 2, "padding": 0},
    "UpsamplingNearest2d": {"scale_factor": 2},
}
# The largest network of the papers has some three hundred.
_MOST_PARTS = 5000


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint does not tell of its model.

    Attributes
    ----------
    name : str
        Of the model.
    modalities : (str, str)
        Of its networks, in the order of their names in the file.
    mpp : float
        Pixel size in µm that it was trained at.
    licence : str
        Of the weights.
    full : float or None
        The pixel value that was scaled to 1; None for the largest of the pixels' type.
    log : tuple of str
        Modalities of which log(1 + x) was taken, beside those whose network says so.
    """

    name: str
    modalities: tuple[str, str]
    mpp: float
    licence: str = "not stated"
    full: float | None = None
    log: tuple[str, ...] = ()


def import_original(checkpoint: Path, folder: Path, facts: Facts) -> ModelCard:
    """Write the model of a checkpoint into a folder and return its card.

    The number of slides is not recorded in a checkpoint; the card says 1, the cautious number.

    Raises
    ------
    ModelError
        If the file is no such checkpoint, its networks are of a kind that is not supported, or the facts do not fit; or
        if the folder holds a model already.
    """
    if is_model(folder):
        raise ModelError(f"{folder} holds a model already. Choose another --out")
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder} is a file, not a folder. Choose another --out")
    require_name(facts.name)
    cards, networks = [], {}
    for modality, (key, module) in zip(facts.modalities, _two_networks(checkpoint), strict=True):
        where = f"{key} of {checkpoint}"
        parts = _parts(module, where)
        tensors = _tensors(parts)
        architecture = _architecture(tensors, _attribute(parts.get("bottleneck.layers.0"), "dropout"), where)
        networks[modality] = _network(architecture, parts, tensors, where)
        log = bool(_attribute(module, "log_transform")) or modality in facts.log
        scaled = Input(scaling="full", full=facts.full, log=log)
        cards.append(ModalityCard(modality=modality, architecture=architecture, input=scaled))
    return save(folder, _card(checkpoint, facts, cards), networks)


def _card(checkpoint: Path, facts: Facts, cards: list[ModalityCard]) -> ModelCard:
    unknown = set(facts.log) - set(facts.modalities)
    if unknown:
        raise ModelError(f"log names {', '.join(sorted(unknown))}, which is not one of the modalities")
    try:
        return ModelCard(
            name=facts.name,
            modalities=(cards[0], cards[1]),
            mpp=facts.mpp,
            slides=1,
            trained_on="not recorded in the checkpoint",
            held_out="not known",
            data_sha256={checkpoint.name: hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
            training={"imported": "from a checkpoint of the authors' code"},
            licence=facts.licence,
            weights_sha256="",
        )
    except ValidationError as error:
        raise ModelError(wrong_fields(error)) from error


def _two_networks(checkpoint: Path) -> list[tuple[str, Record]]:
    content = read_checkpoint(checkpoint)
    entries = content.items() if isinstance(content, dict) else ()
    found = sorted((str(key), value) for key, value in entries if "conv_init" in _table(value, "_modules"))
    if len(found) != 2:
        raise ModelError(
            f"{checkpoint} holds {len(found)} pickled networks of CoMIR, not two; give a checkpoint with modelA and "
            "modelB as the authors' training saves it, not a state_dict"
        )
    return found


def _attribute(part: object, name: str) -> Any:
    return part.state.get(name) if isinstance(part, Record) and isinstance(part.state, dict) else None


def _table(part: object, name: str) -> dict[Any, Any]:
    """Return a module's `_modules`, `_parameters` or `_buffers`."""
    found = _attribute(part, name)
    return found if isinstance(found, dict) else {}


def _parts(module: Record, where: str) -> dict[str, Record]:
    """Return every module below one by our name, level by level, and check what no tensor tells of it."""
    found = [("", module)]
    for name, part in found:  # which grows
        for key, child in _table(part, "_modules").items():
            ours = _OURS.get(str(key), str(key))
            if isinstance(child, Record):
                found.append((".".join(filter(None, (name, ours))), child))
        if len(found) > _MOST_PARTS:
            raise ModelError(f"{where} has more than {_MOST_PARTS} parts: it is not a network of CoMIR")
        for attribute, wanted in _wanted(part).items():
            if (value := _attribute(part, attribute)) != wanted:
                raise ModelError(f"{name} of {where} has {attribute} {value}; supported is {wanted}, as CoMIR has it")
    return dict(found[1:])


def _wanted(part: Record) -> dict[str, object]:
    wanted = dict(_WANTED.get(part.origin[1], {}))
    if part.origin[1] == "Conv2d" and isinstance(kernel := _attribute(part, "kernel_size"), tuple):
        wanted["padding"] = tuple(side // 2 for side in kernel)
    return wanted


def _tensors(parts: Mapping[str, Record]) -> dict[str, Tensor]:
    """Return parameters and buffers by our names; half precision becomes float32."""
    found = {}
    for name, part in parts.items():
        for key, value in (_table(part, "_parameters") | _table(part, "_buffers")).items():
            numbers = tensor(value)
            if numbers is not None:
                found[f"{name}.{key}"] = numbers.float() if numbers.is_floating_point() else numbers
    return found


def _architecture(tensors: Mapping[str, Tensor], dropout: object, where: str) -> Architecture:
    """Infer the architecture from the tensors' names and shapes."""
    try:
        stem, growth = tensors["stem.weight"], len(tensors["bottleneck.layers.0.2.weight"])
        down = _layers(tensors, "down_blocks")
        steps = [tensors[f"down_steps.{index}.2.weight"].shape for index in range(len(down))]
        return Architecture(
            in_channels=stem.shape[1],
            latent_channels=len(tensors["head.weight"]),
            init_filters=len(stem),
            down=down,
            bottleneck=_layers(tensors, "bottleneck")[0],
            up=_layers(tensors, "up_blocks"),
            growth=growth,
            compression=_compression([(shape[0], shape[1]) for shape in steps]),
            dropout=dropout or 0.0,
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{where} is not a dense U-Net as CoMIR uses it: {_line(error)}") from error


def _layers(tensors: Mapping[str, Tensor], part: str) -> tuple[int, ...]:
    """Return the number of dense layers of each block of a part, from the names of their convolutions."""
    blocks: dict[str, int] = {}
    for name in tensors:
        if name.startswith(f"{part}.") and name.endswith(".2.weight"):
            block = name.split(".layers.")[0]
            blocks[block] = blocks.get(block, 0) + 1
    return tuple(blocks.values())


def _compression(widths: list[tuple[int, int]]) -> float:
    """Return the shortest decimal fraction with ``int(before * fraction) == after`` for each (after, before)."""
    low = max(after / before for after, before in widths)
    high = min((after + 1) / before for after, before in widths)
    for digits in range(1, 8):
        fraction: float = math.ceil(low * 10**digits) / 10**digits
        if fraction < high:
            return fraction
    raise ValueError("the transitions down do not keep the same share of the channels")


def _network(architecture: Architecture, parts: dict[str, Record], tensors: dict[str, Tensor], where: str) -> DenseUNet:
    """Return our network with the pickled one's tensors; its parts must be ours, apart from dropout."""
    if "head.bias" in tensors:
        raise ModelError(
            f"{where} has a bias in its last convolution, which is not supported: it would shift one representation "
            "against the other, and CoMIR has none"
        )
    network = DenseUNet(architecture)
    ours = {name: _kind(part) for name, part in network.named_modules() if not list(part.children())}
    theirs = {name: part.origin[1] for name, part in parts.items() if not _table(part, "_modules")}
    for name in [*theirs, *ours]:
        kinds = theirs.get(name, "nothing"), ours.get(name, "nothing")
        if kinds[0] != kinds[1] and not all(kind.startswith(("Dropout", "nothing")) for kind in kinds):
            raise ModelError(f"{where} has {kinds[0]} at {name}, which is not supported; CoMIR has {kinds[1]} there")
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{where} is not a dense U-Net as CoMIR uses it: {_line(error)}") from error
    return network


def _kind(part: nn.Module) -> str:
    return "UpsamplingNearest2d" if isinstance(part, nn.Upsample) else type(part).__name__


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
