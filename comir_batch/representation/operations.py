"""How much a network computes; for plans, so it needs no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from comir_batch.representation.field import field
from comir_batch.representation.memory import TILE

if TYPE_CHECKING:
    from comir_batch.core.block import BlockPlan
    from comir_batch.core.card import Architecture


def multiplications(architecture: Architecture) -> float:
    """Return the multiplications of all convolutions for one pixel of the input.

    Those of a level that is halved ``k`` times count a ``4**k``-th. Normalisation and activations are not counted.
    """
    a, scale = architecture, 1.0
    total, width, skips = 9.0 * a.in_channels * a.init_filters, a.init_filters, []
    for layers in a.down:
        total += scale * _dense(width, layers, a.growth)
        skips.append(width + layers * a.growth)
        width = int(skips[-1] * a.compression)
        total += scale * skips[-1] * width
        scale /= 4
    total += scale * _dense(width, a.bottleneck, a.growth)
    new = a.bottleneck * a.growth
    for layers in a.up:
        scale *= 4
        total += scale * 9 * new * new
        width = skips.pop() + new
        total += scale * _dense(width, layers, a.growth)
        new = layers * a.growth
    return total + (width + new) * a.latent_channels


def pixels_seen(architecture: Architecture, blocks: BlockPlan, tile: int = TILE) -> int:
    """Return how many pixels the network sees of all blocks, the halos of its tiles included."""
    return sum(
        _with_halos(block.width, architecture, tile) * _with_halos(block.height, architecture, tile) for block in blocks
    )


def _dense(width: int, layers: int, growth: int) -> int:
    return sum(9 * (width + index * growth) * growth for index in range(layers))


def _with_halos(side: int, architecture: Architecture, tile: int) -> int:
    halo, stride = field(architecture)
    return sum(-(-(end - start) // stride) * stride + 2 * halo for start, end in pairwise(_cuts(side, tile)))


def _cuts(side: int, tile: int) -> list[int]:
    return [*range(0, side, tile), side]
