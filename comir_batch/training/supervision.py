"""Contrastive supervision of the bottleneck (Wetzer, Lindblad, Sladoje, IbPRIA 2023, arXiv 2303.00403), as we read it.

No code was released with the paper. Here the features of the bottleneck, turned back like the outputs, are vectors that
the loss of the outputs is applied to, with a critic of their own and the same temperature; both losses weigh the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from comir_batch.training.critics import Critic  # noqa: TC001  settings are checked by these annotations
from comir_batch.training.loss import info_nce

if TYPE_CHECKING:
    from torch import Tensor

Approach = Literal["none", "alternating", "summed", "pretraining"]


@dataclass(frozen=True, slots=True)
class Supervision:
    """How the bottleneck is supervised.

    Attributes
    ----------
    approach : {"none", "alternating", "summed", "pretraining"}
        Not at all; on every second step, in place of the outputs; on every step, beside them; on the first half of the
        steps, before them.
    critic : {"mse", "cosine", "l1"}
        How alike two bottlenecks are: minus the mean square or mean absolute difference of their features, or the
        cosine of all features taken as one vector.
    """

    approach: Approach = "none"
    critic: Critic = "mse"


class Wanted(NamedTuple):
    """Which losses a step takes; at least one."""

    outputs: bool
    bottleneck: bool


def wanted(supervision: Supervision, step: int, steps: int) -> Wanted:
    """Return the losses that step number ``step``, from 0, of ``steps`` takes; alternation begins with the outputs."""
    if supervision.approach == "none":
        return Wanted(outputs=True, bottleneck=False)
    if supervision.approach == "summed":
        return Wanted(outputs=True, bottleneck=True)
    below = step % 2 == 1 if supervision.approach == "alternating" else step < steps // 2
    return Wanted(outputs=not below, bottleneck=below)


def bottleneck_loss(first: Tensor, second: Tensor, temperature: float, critic: Critic) -> Tensor:
    """Return InfoNCE over the bottlenecks of N places in each modality.

    Parameters
    ----------
    first, second : (N, K, h, w) Tensor
        Features, turned back.
    temperature : float
        Divides the critic.
    critic : {"mse", "cosine", "l1"}
        As in `Supervision`.
    """
    # Of one pixel with as many channels as there are features, so that the cosine is that of the whole vector.
    vectors = [features.flatten(1)[:, :, None, None] for features in (first, second)]
    return info_nce(vectors[0], vectors[1], temperature, critic)
