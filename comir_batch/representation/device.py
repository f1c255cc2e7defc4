"""The device that networks run on; only looking for CUDA needs torch."""

from __future__ import annotations

import importlib.util
from typing import Literal

from comir_batch.core.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """Return the device that ``auto`` stands for here, or the one asked for.

    Raises
    ------
    ModelError
        If CUDA is asked for and there is none.
    """
    if device == "cpu":
        return "cpu"
    if _sees_cuda():
        return "cuda"
    if device == "cuda":
        raise ModelError("device 'cuda' was asked for, but there is no CUDA device here; use device 'cpu' or 'auto'")
    return "cpu"


def _sees_cuda() -> bool:
    """Tell whether networks of this process could run on CUDA; without torch there are none."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch  # noqa: PLC0415  a host that only drives has none

    return torch.cuda.is_available()
