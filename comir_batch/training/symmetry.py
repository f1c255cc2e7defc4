"""Turns of crops that networks shall follow: drawn for each crop of each modality, undone on its representation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Symmetry = Literal["none", "c4", "d4"]

_ORDERS: dict[Symmetry, int] = {"none": 1, "c4": 4, "d4": 8}


def draw(symmetry: Symmetry, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` numbers of turns: quarters (0-3) for ``c4``, mirrored ones too (0-7) for ``d4``, else zeros."""
    return rng.integers(_ORDERS[symmetry], size=count)


def turn(image: Tensor, k: int) -> Tensor:
    """Turn ``(C, Y, X)`` by ``k % 4`` quarters, mirrored along x before if k is 4 or more."""
    return torch.rot90(image.flip(-1) if k >= 4 else image, k % 4, (-2, -1))


def turn_back(image: Tensor, k: int) -> Tensor:
    """Undo `turn`."""
    image = torch.rot90(image, -(k % 4), (-2, -1))
    return image.flip(-1) if k >= 4 else image


def turn_each(images: Tensor, turns: Iterable[int]) -> Tensor:
    """Turn each of ``(N, C, S, S)`` by its own number."""
    return torch.stack([turn(image, int(k)) for image, k in zip(images, turns, strict=True)])


def turn_each_back(images: Tensor, turns: Iterable[int]) -> Tensor:
    """Undo `turn_each`, on representations or on maps of the bottleneck."""
    return torch.stack([turn_back(image, int(k)) for image, k in zip(images, turns, strict=True)])
