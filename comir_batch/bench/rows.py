"""What was measured on each field of the registration benchmark, in ``fields.jsonl``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from comir_batch.bench.field_worker import Setup

_SETUP = "setup.json"


class Rows:
    """The measured fields of a folder: a line each, or several with a few of the methods, as they come.

    Parameters
    ----------
    out : Path
        The folder; made what `setup` says if it is new.
    setup : Setup
        What fields are drawn from and registered with.

    Attributes
    ----------
    done : dict
        Rows as `field_worker.measure_batch` returns them, by condition and number.

    Raises
    ------
    ConfigError
        If the folder holds fields of something else.
    """

    def __init__(self, out: Path, setup: Setup) -> None:
        self._path, described = out / "fields.jsonl", out / _SETUP
        if described.is_file() and _with_defaults(read_json(described)) != setup.description:
            raise ConfigError(f"{out} holds fields of another model, other pairs or settings; choose another --out")
        write_json(described, setup.description)
        lines = _whole_lines(self._path)
        write_text(self._path, "".join(lines))
        self.done = _joined(lines)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep rows."""
        with self._path.open("a", encoding="utf-8") as stream:
            for row in rows:
                stream.write(json.dumps(row) + "\n")
                _take(self.done, row)

    def missing(self, condition: str, number: int, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return which of some methods have not been measured on a field; none where it has no place."""
        row = self.done.get((condition, number), {"methods": {}})
        return tuple(name for name in wanted if "methods" in row and name not in row["methods"])


def read_rows(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a folder's fields were drawn from (`Setup.description`), and their rows.

    Raises
    ------
    ConfigError
        If the folder holds no fields.
    """
    if not (out / _SETUP).is_file():
        raise ConfigError(f"{out} holds no measured fields; give the --out of comir-batch bench registration")
    return read_json(out / _SETUP), list(_joined(_whole_lines(out / "fields.jsonl")).values())


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]  # the last one may have been cut off


def _joined(lines: Iterable[str]) -> dict[tuple[str, int], dict[str, Any]]:
    done: dict[tuple[str, int], dict[str, Any]] = {}
    for row in map(json.loads, lines):
        _take(done, row)
    return done


def _take(done: dict[tuple[str, int], dict[str, Any]], row: dict[str, Any]) -> None:
    earlier = done.setdefault((row["condition"], row["number"]), row)
    for part in ("methods", "evidence"):  # there are rows without evidence, of earlier versions
        if part in row:
            earlier.setdefault(part, {}).update(row[part])


def _with_defaults(description: dict[str, Any]) -> dict[str, Any]:
    """Complete what an earlier version wrote, which lacks the settings that came since; they changed no result."""
    return {**description, "register": RegisterConfig().model_dump(mode="json") | description["register"]}
