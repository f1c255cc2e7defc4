"""Blocks that go to a worker in one task: sending a task takes a driver 5 ms, however little there is to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from comir_batch.core.geometry import Region

_TASK_MB = 64.0
"""Decoded pixels of a task on a CPU that copies or interpolates: two or three seconds of work."""


class Batch(NamedTuple):
    """Some blocks of an image, in their order.

    Attributes
    ----------
    name : str
        Tells which they are: two batches of one image with the same name are the same.
    """

    name: str
    regions: tuple[Region, ...]


def batch_size(block_mb: float) -> int:
    """Return how many blocks of so many MB of decoded pixels a task takes."""
    return max(int(_TASK_MB / block_mb), 1)


def batch_count(blocks: int, size: int) -> int:
    """Return how many batches so many blocks make."""
    return math.ceil(blocks / size)


def batches(blocks: Sequence[tuple[int, Region]], size: int) -> Iterator[Batch]:
    """Yield batches of blocks, which are given with their numbers."""
    for first in range(0, len(blocks), size):
        some = blocks[first : first + size]
        yield Batch(f"b{some[0][0]}_{some[-1][0]}", tuple(region for _, region in some))
