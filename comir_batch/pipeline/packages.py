"""What an installation must have to compute; driving needs less."""

from __future__ import annotations

import importlib.util

from comir_batch.core.errors import ConfigError

_COMPUTING = ("torch", "safetensors", "itk", "SimpleITK")


def require_computing() -> None:
    """Refuse to compute on a host that can only drive.

    Raises
    ------
    ConfigError
        If a package is missing without which tasks would fail.
    """
    missing = [name for name in _COMPUTING if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"this installation can drive a run but not compute it: it lacks {', '.join(missing)}. "
            "Run pip install 'comir-batch[worker]', or choose an executor whose workers are elsewhere"
        )
