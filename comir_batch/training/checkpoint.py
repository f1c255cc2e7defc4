"""What a stopped training needs to go on: tensors and a record, in one safetensors file that appears whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from comir_batch.core.errors import ConfigError
from comir_batch.representation.store import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_VERSION = "2"


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """State of a training after a step.

    Attributes
    ----------
    tensors : dict
        By name: those of the learner, and ``best.*``, the best weights so far.
    record : dict
        JSON: what decides the result, and what happened so far.
    """

    tensors: Mapping[str, Tensor]
    record: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(dict(self.tensors), {"version": _VERSION, "record": json.dumps(dict(self.record))}))

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read from a file.

        Raises
        ------
        ConfigError
            If it is not a checkpoint of this version.
        """
        record = read_record(path)
        with safe_open(path, "pt") as stream:
            return cls({name: stream.get_tensor(name) for name in stream.keys()}, record)  # noqa: SIM118  not a dict


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a checkpoint alone.

    Raises
    ------
    ConfigError
        If it is not a checkpoint of this version.
    """
    try:
        with safe_open(path, "pt") as stream:
            about = stream.metadata() or {}
    except SafetensorError as error:
        raise ConfigError(f"{path} is no checkpoint of a training: {error}. Choose another --out") from error
    if about.get("version") != _VERSION:
        raise ConfigError(f"{path} is a checkpoint of another version. Begin anew in another --out")
    record: dict[str, Any] = json.loads(about["record"])
    return record
