"""Tables: drawn on a terminal, plain lines that nothing wraps elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    lines: Sequence[str] | None = None,
    stderr: bool = False,
) -> None:
    """Print rows under a title.

    Parameters
    ----------
    title : str
        Stands above.
    columns : sequence of str
        Heads.
    rows : sequence of sequences of str
        Cells.
    lines : sequence of str or None
        What stands for each row off a terminal; None for the cells in columns of spaces.
    stderr : bool
        Where to print.
    """
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty():
        _draw(title, columns, rows, stderr=stderr)
        return
    plain = _aligned([columns, *rows]) if lines is None else lines
    stream.write("\n".join([f"{title}:", *plain]) + "\n")


def _draw(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_lines=len(columns) > 3)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(stderr=stderr).print(table)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
