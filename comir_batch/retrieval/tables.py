"""Tables of slides and of queries: CSV files with a slide a row."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

from comir_batch.core.errors import ManifestError, Problem
from comir_batch.core.slide import SlideSpec
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
    header, lines = _read(path)
    base = path.resolve().parent
    rows: list[SlideRow] = []
    problems: list[Problem] = []
    for number, cells in lines:
        wrong = list(_problems(number, header, cells, {row.name.casefold() for row in rows}))
        problems += wrong
        if not wrong:
            rows.append(_row(number, dict(zip(header, cells, strict=True)), base))
    if problems:
        raise ManifestError(problems)
    return tuple(rows)


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = enumerate(csv.reader(stream, strict=True), start=1)
            lines = [(number, [cell.strip() for cell in cells]) for number, cells in table if any(cells)]
    except OSError as error:
        raise ManifestError([Problem(0, "-", f"cannot read {path}: {error.strerror}", "Check the path")]) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError([Problem(0, "-", f"{path} is not a CSV in UTF-8", "Save it as CSV UTF-8")]) from error
    if len(lines) < 2:
        raise ManifestError([Problem(1, "-", f"{path} has no rows", f"Write a header with {', '.join(REQUIRED)}")])
    header = lines[0][1]
    problems = [
        Problem(1, name, "the column is missing", f"Required are {', '.join(REQUIRED)}")
        for name in REQUIRED
        if name not in header
    ]
    problems += [
        Problem(1, name or "-", "unknown column, or twice the same", f"Optional are {', '.join(OPTIONAL)}")
        for name in sorted(set(header))
        if name not in REQUIRED + OPTIONAL or header.count(name) > 1
    ]
    if problems:
        raise ManifestError(problems)
    return header, lines[1:]


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
