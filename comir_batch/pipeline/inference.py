"""Where the networks of a run compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.errors import ConfigError
from comir_batch.core.task import Resource
from comir_batch.pipeline.job import Inference
from comir_batch.representation.device import resolve_device

if TYPE_CHECKING:
    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.profile import Profile


def inference(config: ExecutionConfig, profile: Profile | None) -> Inference:
    """Return the device, and the kind of worker that has it.

    On a cluster the profile says; on this machine ``auto`` takes CUDA if it is there.

    Raises
    ------
    ModelError
        If CUDA is asked for and there is none.
    ConfigError
        If a cluster that has no profile is attached to and the device is not given.
    """
    if profile is not None:
        return Inference(profile.device, profile.network_resource)
    if config.executor == "attach":
        if config.device == "auto":
            raise ConfigError("say where the attached workers run networks: --device cpu or cuda, or a --profile")
        return Inference(config.device, Resource.GPU if config.device == "cuda" else Resource.CPU)
    device = resolve_device(config.device)
    return Inference(device, Resource.GPU if device == "cuda" else Resource.CPU)
