"""Tables as users write them: CSV with named columns, a thing a row."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from comir_batch.core.errors import ManifestError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and the cells of each row that is not blank with its number in a spreadsheet.

    Raises
    ------
    ManifestError
        If the file cannot be read, is no CSV in UTF-8, has no rows, or other columns than it may.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            table = enumerate(csv.reader(stream, strict=True), start=1)
            lines = [(number, cells) for number, cells in table if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise ManifestError([Problem(0, "-", f"cannot read {path}: {error.strerror}", "Check the path")]) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(
            [Problem(0, "-", f"{path} is not a CSV in UTF-8: {error}", "Save it as CSV UTF-8")]
        ) from error
    if len(lines) < 2:
        raise ManifestError(
            [Problem(1, "-", f"{path} has no rows", f"Write a header with {', '.join(required)}, and rows")]
        )
    header = [name.strip() for name in lines[0][1]]
    if len(header) == 1 and ";" in header[0]:
        raise ManifestError([Problem(1, "-", f"{path} is separated by semicolons", "Save it as CSV with commas")])
    problems = [
        Problem(1, name, "the column is missing", f"Required are {', '.join(required)}")
        for name in required
        if name not in header
    ]
    problems += [
        Problem(1, name or "-", "unknown column", f"Optional are {', '.join(optional)}")
        for name in header
        if name not in {*required, *optional}
    ]
    problems += [
        Problem(1, name, "the column stands twice", "Remove one")
        for name in sorted({n for n in header if header.count(n) > 1})
    ]
    if problems:
        raise ManifestError(problems)
    return header, lines[1:]
