"""One table of several folders of the registration benchmark, such as those of several models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comir_batch.bench.conditions import conditions
from comir_batch.bench.methods import METHODS
from comir_batch.bench.registration_table import pixels, share, summarise
from comir_batch.bench.rows import newest_rows
from comir_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from comir_batch.bench.registration_table import Table

EARLIER = "†"
"""Marks what only an earlier revision, or other settings, have measured."""


def joined_table(outs: Sequence[Path], only: Sequence[str] = (), methods: Sequence[str] = ()) -> Table:
    """Return a row for each condition of each folder that has a truth, and a column for each method.

    A cell says which share of the fields was found, with its interval, and the median error of those in pixels.

    Parameters
    ----------
    outs : sequence of Path
        Folders that `bench registration` wrote.
    only, methods : sequence of str
        Names of conditions and of methods; empty for all that have been measured.

    Raises
    ------
    ConfigError
        If a folder holds no fields, or none of what is asked for.
    """
    rows = [row for out in outs for row in _rows(out, only, methods)]
    names = [name for name in METHODS if any(name in cells for _, cells in rows)]
    texts = [(head, *(cells.get(name, "-") for name in names)) for head, cells in rows]
    return ("fields", *(METHODS[name] for name in names)), texts


def _rows(out: Path, only: Sequence[str], methods: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    about, fields, earlier = newest_rows(out)
    asked = [condition for condition in conditions(about["side"]) if not only or condition.name in only]
    found = [
        (group, cells)
        for group in summarise([row for row in fields if row["condition"] in {c.name for c in asked}], asked)
        if (cells := {n: cell for n, cell in group["methods"].items() if "found" in cell and n in (methods or METHODS)})
    ]
    if not found:
        raise ConfigError(f"{out} holds nothing of {', '.join((*only, *methods)) or 'a condition with a truth'}")
    for group, cells in found:
        count = max(cell["n"] for cell in cells.values())
        head = f"{about['model']['name']}, {group['condition']}, {group['side']} px, n = {count}"
        marks = {name: EARLIER if (group["condition"], name) in earlier else "" for name in cells}
        yield head, {name: _text(count, cell) + marks[name] for name, cell in cells.items()}


def _text(count: int, cell: Mapping[str, Any]) -> str:
    return f"{share(count, cell)}; {pixels(cell['error_px'])}"
