"""The contrastive loss of CoMIR (Pielawski et al., NeurIPS 2020, arXiv 2006.06325), without loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from comir_batch.training.critics import CRITICS

if TYPE_CHECKING:
    from torch import Tensor

    from comir_batch.training.critics import Critic


def info_nce(
    first: Tensor, second: Tensor, temperature: float, critic: Critic = "mse", *, decoupled: bool = False
) -> Tensor:
    """Return InfoNCE over the 2N crops of two modalities.

    Each crop's partner p is the same place in the other modality; the 2N - 2 other crops of both modalities are its
    negatives: ``L = mean_i(-s_ip + log sum_(j != i) exp(s_ij))`` with ``s = critic / temperature``.

    Parameters
    ----------
    first, second : (N, C, Y, X) Tensor
        Representations of N places in each modality.
    temperature : float
        Divides the critic.
    critic : {"mse", "cosine", "l1"}
        How alike two crops are.
    decoupled : bool
        Leave the partner out of the sum, ``j != i, p`` (decoupled contrastive learning, Yeh et al., ECCV 2022, arXiv
        2110.06848): the gradient then does not fade in small batches.

    Raises
    ------
    ValueError
        If a decoupled loss is asked of one place, which has no negatives.
    """
    count = len(first)
    if decoupled and count < 2:
        raise ValueError("the decoupled loss needs at least two places")
    scores = CRITICS[critic](torch.cat([first, second])) / temperature
    partners = scores.diagonal(count).repeat(2)
    left_out = torch.eye(2 * count, dtype=torch.bool, device=scores.device)
    if decoupled:
        left_out = left_out | left_out.roll(count, 0)
    return (scores.masked_fill(left_out, float("-inf")).logsumexp(dim=1) - partners).mean()


def activation_decay(first: Tensor, second: Tensor, power: int) -> Tensor:
    """Return the mean of ``|z|**power`` over the representations of both modalities."""
    return torch.cat([first.flatten(), second.flatten()]).abs().pow(power).mean()
