"""Tables of slides and of queries: CSV files with a slide a row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from comir_batch.core.errors import ManifestError, Problem
from comir_batch.core.slide import SlideSpec
from comir_batch.core.table import read_table
from comir_batch.pipeline.representing import SlideRow

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED = ("slide_id", "path", "modality")
OPTIONAL = ("channel", "series", "mpp", "mask")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read_slides(path: Path) -> tuple[SlideRow, ...]:
    """Read a table of slides; relative paths are relative to its folder.

    Parameters
    ----------
    path : Path
        A CSV in UTF-8 with the columns of `REQUIRED` and any of `OPTIONAL`.

    Raises
    ------
    ManifestError
        With all that is wrong with the table.
    """
    header, lines = read_table(path, REQUIRED, OPTIONAL)
    base = path.resolve().parent
    rows: list[SlideRow] = []
    problems: list[Problem] = []
    for number, values in lines:
        cells = [value.strip() for value in values]
        wrong = list(_problems(number, header, cells, {row.name.casefold() for row in rows}))
        problems += wrong
        if not wrong:
            rows.append(_row(number, dict(zip(header, cells, strict=True)), base))
    if problems:
        raise ManifestError(problems)
    return tuple(rows)


def _problems(number: int, header: list[str], cells: list[str], taken: set[str]) -> Iterator[Problem]:
    if len(cells) != len(header):
        yield Problem(number, "-", f"has {len(cells)} cells, the header {len(header)}", "Write a cell for each column")
        return
    row = dict(zip(header, cells, strict=True))
    for name in REQUIRED:
        if not row[name]:
            yield Problem(number, name, "the cell is empty", "Fill it in")
    if row["slide_id"] and not _NAME.fullmatch(row["slide_id"]):
        remedy = "Use letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
        yield Problem(number, "slide_id", f"{row['slide_id']!r} cannot be the name of a file", remedy)
    if row["slide_id"].casefold() in taken:
        yield Problem(number, "slide_id", f"{row['slide_id']!r} stands twice", "Give it another name")
    if row.get("mpp") and not _is_size(row["mpp"]):
        yield Problem(number, "mpp", f"{row['mpp']!r} is no pixel size", "Give the µm of a level-0 pixel, like 0.25")
    if row.get("series") and not row["series"].isdecimal():
        yield Problem(number, "series", f"{row['series']!r} is no whole number", "Give the image's number, from 0")


def _is_size(text: str) -> bool:
    try:
        return 0 < float(text) < 1000
    except ValueError:
        return False


def _row(number: int, cells: dict[str, str], base: Path) -> SlideRow:
    def path(text: str) -> Path:
        return (base / Path(text).expanduser()).resolve()

    size, mask = cells.get("mpp"), cells.get("mask")
    spec = SlideSpec(
        path(cells["path"]),
        int(cells.get("series") or 0),
        cells.get("channel", ""),
        float(size) if size else None,
    )
    return SlideRow(number, cells["slide_id"], spec, cells["modality"].lower(), path(mask) if mask else None)
