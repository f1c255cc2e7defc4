"""The contrastive loss of CoMIR (Pielawski et al., NeurIPS 2020, arXiv 2006.06325), without loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def similarities(crops: Tensor) -> Tensor:
    """Return the ``(M, M)`` critic ``-mean((x - y)**2)`` of all pairs of M crops.

    By the Gram matrix, ``|x - y|**2 = |x|**2 + |y|**2 - 2 x.y``, after the mean crop is taken away: differences do not
    see it, and float32 keeps its digits for them.
    """
    flat = crops.flatten(1)
    flat = flat - flat.mean(dim=0, keepdim=True)
    gram = flat @ flat.T
    norms = gram.diagonal()
    return (2 * gram - norms[:, None] - norms[None, :]) / flat.shape[1]


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE over the 2N crops of two modalities.

    Each crop's partner is the same place in the other modality; the 2N - 2 other crops of both modalities are its
    negatives: ``L = mean_i(-s_ip + log sum_(j != i) exp(s_ij))`` with ``s = critic / temperature``.

    Parameters
    ----------
    first, second : (N, C, Y, X) Tensor
        Representations of N places in each modality.
    temperature : float
        Divides the critic.
    """
    count = len(first)
    scores = similarities(torch.cat([first, second]).flatten(1)) / temperature
    scores = scores.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=scores.device), float("-inf"))
    partners = torch.arange(2 * count, device=scores.device).roll(count)
    return functional.cross_entropy(scores, partners)


def activation_decay(first: Tensor, second: Tensor, power: int) -> Tensor:
    """Return the mean of ``|z|**power`` over the representations of both modalities."""
    return torch.cat([first.flatten(), second.flatten()]).abs().pow(power).mean()
