"""What was measured on each field of the registration benchmark, in ``fields.jsonl``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from comir_batch.bench.field_worker import digest_of
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import read_json, write_json, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from comir_batch.bench.field_worker import Setup

_SETUP = "setup.json"
_PARTS = frozenset({"methods", "evidence"})  # of a row, by method; there is no evidence where no verdicts were wanted


class Rows:
    """The measured fields of a folder: a line each, or several with a few of the methods, as they come.

    A line says which revision and settings each of our methods had. Those of others stay in the file, and others'
    methods count whatever settings they were measured beside.

    Parameters
    ----------
    out : Path
        The folder; made what `setup` says if it is new.
    setup : Setup
        What fields are drawn from and registered with.

    Attributes
    ----------
    done : dict
        Rows as `field_worker.measure_batch` returns them, by condition and number; our methods with these settings.

    Raises
    ------
    ConfigError
        If the folder holds fields of something else.
    """

    def __init__(self, out: Path, setup: Setup) -> None:
        self._path, described = out / "fields.jsonl", out / _SETUP
        if described.is_file() and _shared(read_json(described)) != setup.description:
            raise ConfigError(f"{out} holds fields of another model, other pairs, side or seed; choose another --out")
        write_json(described, {**setup.description, "ours": setup.ours})
        lines = _whole_lines(self._path)
        write_text(self._path, "".join(lines))
        self._ours = _settings(setup.ours)
        self.done = _joined(lines, lambda _, name: self._ours.get(name))

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep rows."""
        with self._path.open("a", encoding="utf-8") as stream:
            for row in rows:
                ours = {name: self._ours[name] for name in row.get("methods", ()) if name in self._ours}
                stream.write(json.dumps({**row, "ours": ours}) + "\n")
                _take(self.done, row)

    def missing(self, condition: str, number: int, wanted: Iterable[str]) -> tuple[str, ...]:
        """Return which of some methods have not been measured on a field; none where it has no place."""
        row = self.done.get((condition, number), {"methods": {}})
        return tuple(name for name in wanted if "methods" in row and name not in row["methods"])


def read_rows(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what a folder's fields were drawn from (`Setup.description`), and their rows with the last settings.

    Raises
    ------
    ConfigError
        If the folder holds no fields.
    """
    about, lines, ours = _folder(out)
    return about, list(_joined(lines, lambda _, name: ours.get(name)).values())


def newest_rows(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]], set[tuple[str, str]]]:
    """Return the same with earlier results of what the last settings have not measured, and which those are.

    Returns
    -------
    about, rows
        As `read_rows` returns them.
    earlier : set of (str, str)
        Conditions and methods that the last revision and settings have measured no field of: their results are those
        of the last ones before that have.

    Raises
    ------
    ConfigError
        If the folder holds no fields.
    """
    about, lines, ours = _folder(out)
    newest: dict[tuple[str, str], str] = {}
    for row in map(json.loads, lines):
        for name, of in row["ours"].items():
            key = row["condition"], name
            if newest.get(key) != ours[name]:
                newest[key] = of
    rows = _joined(lines, lambda condition, name: newest.get((condition, name)))
    return about, list(rows.values()), {key for key, of in newest.items() if of != ours[key[1]]}


def _folder(out: Path) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Return what fields were drawn from, their lines, and what stands for the last settings of each of our methods."""
    if not (out / _SETUP).is_file():
        raise ConfigError(f"{out} holds no measured fields; give the --out of comir-batch bench registration")
    described = read_json(out / _SETUP)
    return _shared(described), _whole_lines(out / "fields.jsonl"), _settings(described["ours"])


def _settings(ours: dict[str, Any]) -> dict[str, str]:
    """Return what stands for the revision and the settings of each of our methods."""
    of = {"register": ours["register"]}
    return {name: digest_of({**of, "revision": revision})[:16] for name, revision in ours["revisions"].items()}


def _shared(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "ours"}


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [line for line in lines if line.endswith("\n")]  # the last one may have been cut off


def _joined(lines: Iterable[str], counts: Callable[[str, str], str | None]) -> dict[tuple[str, int], dict[str, Any]]:
    """Join the lines of each field; which settings count, a function of the condition and the method says."""
    done: dict[tuple[str, int], dict[str, Any]] = {}
    for row in map(json.loads, lines):
        measured_by, condition = row.pop("ours"), row["condition"]
        for part in _PARTS & row.keys():
            row[part] = {name: of for name, of in row[part].items() if measured_by.get(name) == counts(condition, name)}
        _take(done, row)
    return done


def _take(done: dict[tuple[str, int], dict[str, Any]], row: dict[str, Any]) -> None:
    earlier = done.setdefault((row["condition"], row["number"]), row)
    for part in _PARTS & row.keys():
        earlier.setdefault(part, {}).update(row[part])
