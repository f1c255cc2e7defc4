"""How alike crops are: the critics of the contrastive loss, each as one matrix for all pairs of crops.

Larger means more alike. All are exact up to rounding, differentiable with finite gradients everywhere, and symmetric in
their crops. Compute them in float32 or float64, outside autocast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Critic = Literal["mse", "cosine", "l1"]

SHORTEST = 1e-4
"""Length that vectors of the cosine are lengthened by, in quadrature, so that its gradient at zero is finite."""

# Elements of all crops whose absolute differences are taken at a time. A backward pass on CUDA keeps a number for each
# of them and each pair; on a CPU, rows whose length is a power of two fall on the same lines of its cache.
_COLUMNS = 520


def mse(crops: Tensor) -> Tensor:
    """Return the ``(M, M)`` critic ``-mean((x - y)**2)`` of all pairs of ``(M, C, Y, X)`` crops.

    By the Gram matrix, ``|x - y|**2 = |x|**2 + |y|**2 - 2 x.y``, after the mean crop is taken away: differences do not
    see it, and float32 keeps its digits for them.
    """
    flat = crops.flatten(1)
    flat = flat - flat.mean(dim=0, keepdim=True)
    gram = flat @ flat.T
    norms = gram.diagonal()
    return (2 * gram - norms[:, None] - norms[None, :]) / flat.shape[1]


def cosine(crops: Tensor) -> Tensor:
    """Return the ``(M, M)`` mean over pixels of the cosine over channels, of all pairs of ``(M, C, Y, X)`` crops.

    The cosine is ``x.y / (|x| |y|)`` with ``|x| = sqrt(sum(x**2) + SHORTEST**2)``; so it is 0 where a vector is zero.
    """
    lengths = (crops.square().sum(dim=1, keepdim=True) + SHORTEST**2).sqrt()
    flat = (crops / lengths).flatten(1)
    return flat @ flat.T / crops[0, 0].numel()


def l1(crops: Tensor) -> Tensor:
    """Return the ``(M, M)`` critic ``-mean(|x - y|)`` of all pairs of ``(M, C, Y, X)`` crops; flat where x = y."""
    flat = crops.flatten(1)
    parts = torch.split(flat, _COLUMNS, dim=1)
    distances = torch.stack([functional.pdist(part, p=1) for part in parts]).sum(dim=0) / flat.shape[1]
    above = distances.new_zeros(len(flat), len(flat))
    above[*torch.triu_indices(len(flat), len(flat), 1, device=crops.device)] = distances
    return -(above + above.T)


CRITICS: dict[Critic, Callable[[Tensor], Tensor]] = {"mse": mse, "cosine": cosine, "l1": l1}
"""Critics by name."""
