"""Where the networks of a run compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.task import Resource
from comir_batch.pipeline.job import Inference
from comir_batch.representation.device import resolve_device

if TYPE_CHECKING:
    from comir_batch.core.config import ExecutionConfig


def inference(config: ExecutionConfig) -> Inference:
    """Return the device, and the kind of worker that has it; on this machine ``auto`` takes CUDA if it is there.

    Raises
    ------
    ModelError
        If CUDA is asked for and there is none.
    """
    device = resolve_device(config.device)
    return Inference(device, Resource.GPU if device == "cuda" else Resource.CPU)
