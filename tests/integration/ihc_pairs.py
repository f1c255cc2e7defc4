"""Aligned pairs from scikit-image's immunohistochemistry picture, and tiny models of its two modalities."""

from __future__ import annotations

import cv2
import torch
from skimage.data import immunohistochemistry

from comir_batch.core.card import Architecture, ModalityCard, ModelCard
from comir_batch.core.config import ExecutionConfig
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.store import Model
from comir_batch.representation.weights import save
from comir_batch.training.ihc import MPP, haematoxylin_dab_channels
from comir_batch.training.pairs import prepare

TINY = Architecture(in_channels=1, init_filters=4, down=(1, 1), bottleneck=1, up=(1, 1), growth=4)
HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp\n"


def manifest(folder, modalities=("haematoxylin", "dab")):
    """Write the picture's two stains and a manifest of them."""
    channels = dict(zip(("haematoxylin", "dab"), haematoxylin_dab_channels(immunohistochemistry()), strict=True))
    for name, channel in channels.items():
        cv2.imwrite(str(folder / f"{name}.png"), channel)
    files = ",".join(f"{name}.png" for name in modalities)
    path = folder / "pairs.csv"
    path.write_text(f"{HEADER}colon,{files},{','.join(modalities)},{MPP},{MPP}\n", encoding="utf-8")
    return path


def pair(folder, modalities=("haematoxylin", "dab")):
    serial = ExecutionConfig(executor="serial", device="cpu")
    return prepare(manifest(folder, modalities), folder / "data", MPP, serial, lambda _: None).pairs[0]


def tiny_model(folder, seed=0, head=None, **changes):
    """Write a model with random weights; those of the last convolution are changed by `head`."""
    cards = tuple(ModalityCard(modality=name, architecture=TINY) for name in ("haematoxylin", "dab"))
    torch.manual_seed(seed)
    networks = {card.modality: DenseUNet(card.architecture) for card in cards}
    if head is not None:
        for network in networks.values():
            last = list(network.parameters())[-1]
            last.data = head(last.data)
    texts = {"trained_on": "nothing", "held_out": "all", "licence": "MIT", "slides": 1, "weights_sha256": ""}
    card = ModelCard(name=f"tiny-{seed}", modalities=cards, mpp=MPP, **(texts | changes))
    return Model(save(folder, card, networks), folder)
