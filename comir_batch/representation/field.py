"""What an output pixel of a network sees: the halo that a tile needs, and the grid that its origin must lie on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from comir_batch.core.card import Architecture


class Field(NamedTuple):
    """Receptive field of a network.

    Attributes
    ----------
    halo : int
        Pixels around a region on the stride's grid that decide its output, rounded up to whole strides.
    stride : int
        Side of the poolings' grid in pixels; shifting the input by it shifts the output and does nothing else.
    """

    halo: int
    stride: int


def field(architecture: Architecture) -> Field:
    """Compute the field from the architecture.

    The interval of pixels that an output pixel depends on is followed back through the network, for every place of the
    pixel within a stride: a 3x3 convolution adds one pixel on each side, nearest upsampling halves coordinates, 2x2
    pooling doubles them. The way through the bottleneck is the widest, so that the skips need not be followed.
    """
    stride: int = 2 ** len(architecture.down)
    reach = 0
    for x in range(stride):
        low, high = _seen(architecture, x)
        reach = max(reach, x - low, high - x)
    return Field(-(-reach // stride) * stride, stride)


def _seen(architecture: Architecture, x: int) -> tuple[int, int]:
    low = high = x
    for layers in reversed(architecture.up):
        low, high = (low - layers - 1) // 2, (high + layers + 1) // 2
    low, high = low - architecture.bottleneck, high + architecture.bottleneck
    for layers in reversed(architecture.down):
        low, high = 2 * low - layers, 2 * high + 1 + layers
    return low - 1, high + 1
