"""Events as JSON lines in the run directory."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.events import Event


class EventLog:
    """Appends each event to a file; a subscriber of the bus."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: Event) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(event), default=str) + "\n")
