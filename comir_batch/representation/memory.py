"""How much memory representing a block takes; for plans, so it needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.representation.field import field

if TYPE_CHECKING:
    from comir_batch.core.card import ModalityCard

TILE = 512
"""Most pixels a side that a network sees at once, halo not counted."""

_LIBRARIES_MB = 500


def memory_mb(card: ModalityCard, block_side: int, tile: int = TILE) -> int:
    """Return an upper bound in MB of a process that represents blocks of ``block_side`` pixels, libraries included.

    A pixel of a tile takes at most 20 bytes for each channel of the widest, full-resolution features (measured in
    float32 on CPU: 16 for the compact network, 18 for the paper's). A pixel of the block takes at most 8 as read (four
    channels of 16 bits), 12 for each network channel while it is normalised, and 8 for each latent channel.
    """
    a, (halo, stride) = card.architecture, field(card.architecture)
    below = a.up[-2] if len(a.up) > 1 else a.bottleneck
    widest = a.init_filters + (a.down[0] + below + a.up[-1]) * a.growth
    margin = stride + 2 * halo
    network = 20 * widest * (min(tile, block_side) + margin) ** 2
    block = (8 + 12 * a.in_channels + 8 * a.latent_channels) * (block_side + margin) ** 2
    return _LIBRARIES_MB + int((network + block) / 2**20)
