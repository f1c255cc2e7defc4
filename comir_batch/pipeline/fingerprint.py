"""Fingerprints: what a stage's result depends on, and nothing else."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Sequence

# Raised by hand whenever the results of a stage change; golden-tested.
REVISIONS = {
    "chunk": 1,
    "represent": 1,
    "register": 17,
    "judge": 6,
    "warp": 1,
    "export": 3,
    "report": 3,
}


def fingerprint(stage: str, settings: dict[str, Any], inputs: Sequence[str]) -> str:
    """Return 16 hex digits that name a stage's result.

    Parameters
    ----------
    stage : str
        A key of `REVISIONS`.
    settings : dict
        Its config section and its numerics; pydantic models and plain JSON values.
    inputs : sequence of str
        Digests of what it reads: files, or fingerprints of earlier stages, in order.
    """
    content = {"stage": stage, "revision": REVISIONS[stage], "settings": settings, "inputs": list(inputs)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=_plain, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")
