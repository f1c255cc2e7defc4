"""The network: a dense U-Net ("tiramisu") as CoMIR uses it (Pielawski et al., NeurIPS 2020, arXiv 2006.06325)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from comir_batch.core.card import Architecture

PRESETS = {
    "compact": Architecture(in_channels=1),
    "zurich": Architecture(in_channels=3, latent_channels=3),
    "paper": Architecture(
        in_channels=1,
        init_filters=32,
        down=(4,) * 6,
        bottleneck=4,
        up=(4,) * 6,
        compression=0.75,
        dropout=0.2,
    ),
}
"""Architectures by name: `compact`, the default; `zurich` and `paper`, the two of the CoMIR paper."""


def preset(name: str, **changes: Any) -> Architecture:
    """Return a preset architecture with some fields changed.

    Raises
    ------
    KeyError
        If there is no such preset.
    """
    return Architecture.model_validate({**PRESETS[name].model_dump(), **changes})


class DenseUNet(nn.Module):
    """Maps ``(N, in_channels, Y, X)`` to ``(N, latent_channels, Y, X)``; Y and X must be multiples of the stride.

    Every 3x3 convolution sees zeros outside its input. The head has neither bias nor activation.

    Parameters
    ----------
    architecture : Architecture
        Widths and depths.

    Attributes
    ----------
    stride : int
        Pixels of the image along a side of one place of the bottleneck.
    bottleneck_channels : int
        Features of each place of the bottleneck.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.stride = 2 ** len(a.down)
        self.stem = nn.Conv2d(a.in_channels, a.init_filters, 3, padding=1)
        self.down_blocks, self.down_steps = nn.ModuleList(), nn.ModuleList()
        width, skips = a.init_filters, []
        for layers in a.down:
            self.down_blocks.append(_DenseBlock(width, layers, a, keep_input=True))
            skips.append(width + layers * a.growth)
            width = int(skips[-1] * a.compression)
            self.down_steps.append(_TransitionDown(skips[-1], width, a.dropout))
        self.bottleneck = _DenseBlock(width, a.bottleneck, a, keep_input=False)
        self.up_blocks, self.up_steps = nn.ModuleList(), nn.ModuleList()
        new = self.bottleneck_channels = a.bottleneck * a.growth
        for index, layers in enumerate(a.up):
            self.up_steps.append(_TransitionUp(new))
            width = skips.pop() + new
            self.up_blocks.append(_DenseBlock(width, layers, a, keep_input=index == len(a.up) - 1))
            new = layers * a.growth
        self.head = nn.Conv2d(width + new, a.latent_channels, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the representation of a batch of normalised images.

        Raises
        ------
        ValueError
            If a side is no multiple of the stride.
        """
        return self.with_bottleneck(images)[0]

    def with_bottleneck(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the representation, and the ``(N, bottleneck_channels, Y / stride, X / stride)`` bottleneck behind it.

        Raises
        ------
        ValueError
            If a side is no multiple of the stride.
        """
        if images.shape[-1] % self.stride or images.shape[-2] % self.stride:
            raise ValueError(f"sides {tuple(images.shape[-2:])} are not multiples of the stride {self.stride}")
        features, skips = self.stem(images), []
        for block, step in zip(self.down_blocks, self.down_steps, strict=True):
            skips.append(block(features))
            features = step(skips[-1])
        bottleneck = features = self.bottleneck(features)
        for step, block in zip(self.up_steps, self.up_blocks, strict=True):
            features = block(torch.cat([skips.pop(), step(features)], dim=1))
        return self.head(features), bottleneck


class _DenseBlock(nn.Module):
    """Layers that each see the block's input and all earlier layers; returns the new features, or the input too."""

    def __init__(self, width: int, layers: int, architecture: Architecture, *, keep_input: bool) -> None:
        super().__init__()
        growth = architecture.growth
        self.keep_input = keep_input
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + index * growth),
                nn.ReLU(inplace=True),
                nn.Conv2d(width + index * growth, growth, 3, padding=1),
                nn.Dropout(architecture.dropout),
            )
            for index in range(layers)
        )

    def forward(self, features: Tensor) -> Tensor:
        width = features.shape[1]
        for layer in self.layers:
            features = torch.cat([features, layer(features)], dim=1)
        return features if self.keep_input else features[:, width:]


class _TransitionDown(nn.Sequential):
    """Halves the resolution; channels are mixed first."""

    def __init__(self, width: int, compressed: int, dropout: float) -> None:
        super().__init__(
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, compressed, 1),
            nn.Dropout2d(dropout),
            nn.MaxPool2d(2),
        )


class _TransitionUp(nn.Sequential):
    """Doubles the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True)
        )
