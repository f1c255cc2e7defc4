"""Tables of points of any length, CSV or Parquet, a chunk of rows at a time; other columns pass through as they are."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from comir_batch.core.errors import UserError
from comir_batch.io import parquet
from comir_batch.io.whole import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

    from numpy.typing import NDArray

Unit: TypeAlias = Literal["um", "px"]
COLUMNS: dict[Unit, tuple[str, str]] = {"um": ("x_um", "y_um"), "px": ("x_px", "y_px")}
CHUNK_ROWS = 65536
_REMEDY = "Name the two columns of the points x_um,y_um, or x_px,y_px for pixels of level 0"


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some rows of a table.

    Attributes
    ----------
    unit : {"um", "px"}
        Of the points. Pixels are of level 0, whole numbers are pixel centres.
    points : (N, 2) float64
        ``(x, y)``; NaN where the cells are empty.
    columns : dict
        All columns in their order, the points' own among them: lists of text from CSV, Arrow's arrays from Parquet.
    """

    unit: Unit
    points: NDArray[np.float64]
    columns: dict[str, Any]

    def moved(self, points: NDArray[np.float64], unit: Unit) -> Chunk:
        """Return the rows with other points, in columns of their unit's names at the same places."""
        texts = [[None if np.isnan(value) else value for value in axis] for axis in points.T.tolist()]
        new = dict(zip(COLUMNS[self.unit], zip(COLUMNS[unit], texts, strict=True), strict=True))
        columns: dict[str, Any] = dict(new.get(name, (name, column)) for name, column in self.columns.items())
        return Chunk(unit, points, columns)


class Sink(Protocol):
    """What chunks are written to."""

    def write(self, columns: dict[str, Any]) -> None:
        """Append rows; all calls have the same columns."""
        ...


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Yield a table's rows, so many at a time; memory does not grow with the table.

    Parameters
    ----------
    path : Path
        `.csv` (UTF-8, commas, a header) or `.parquet`, with the columns ``x_um,y_um`` or ``x_px,y_px`` among others.

    Raises
    ------
    UserError
        If the file cannot be read, its columns do not say the unit, or a row has no two numbers; the message names it.
    """
    read = {".csv": _csv_columns, ".parquet": parquet.read_columns}[_kind(path)]
    row = 2
    for columns in read(path):
        unit = _unit(path, list(columns))
        points = np.stack([_numbers(path, columns[name], row) for name in COLUMNS[unit]], axis=1)
        _require_finite(path, points, row)
        yield Chunk(unit, points, columns)
        row += len(points)


@contextmanager
def create_table(path: Path) -> Iterator[Sink]:
    """Open a `.csv` or `.parquet` to be written chunk by chunk; it appears whole at the end, by a rename.

    Raises
    ------
    UserError
        If the suffix is another, or Parquet's library is missing.
    """
    kind = _kind(path)
    with whole_file(path) as partial:
        if kind == ".parquet":
            with parquet.create(path, partial) as sink:
                yield sink
        else:
            with partial.open("w", newline="", encoding="utf-8") as stream:
                yield _CsvSink(path, stream)


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UserError(f"{path}: not a table of points by its name. Give a .csv or a .parquet")
    return suffix


def _unit(path: Path, names: Sequence[str]) -> Unit:
    found: list[Unit] = [unit for unit, pair in COLUMNS.items() if set(pair) <= set(names)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{path}: it has both x_um,y_um and x_px,y_px. Leave out the pair that is not to be transformed"
        )
    plain = [name for name in names if name.lower() in ("x", "y")]
    if len(plain) == 2:
        raise UserError(f"{path}: its columns {','.join(plain)} do not say their unit. {_REMEDY}")
    raise UserError(f"{path}: its columns are {','.join(names)}. {_REMEDY}")


def _numbers(path: Path, column: Any, first: int) -> NDArray[np.float64]:
    if not isinstance(column, list):
        return parquet.numbers(path, column)
    try:
        return np.array([float(cell) if cell.strip() else np.nan for cell in column], dtype=np.float64)
    except ValueError as error:
        row, cell = next((row, cell) for row, cell in enumerate(column, start=first) if not _is_number(cell))
        raise UserError(f"{path}: row {row} has {cell!r} for a coordinate. Write a number, or nothing") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return not cell.strip()
    return True


def _require_finite(path: Path, points: NDArray[np.float64], first: int) -> None:
    """Raise unless each point is finite, or has no coordinate at all."""
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1) & ~np.isnan(points).all(axis=1))
    if wrong.size:
        x, y = points[wrong[0]]
        raise UserError(f"{path}: row {first + wrong[0]} has the point {x:g},{y:g}. Write two numbers, or nothing")


def _csv_columns(path: Path) -> Iterator[dict[str, list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            yield from _columns(path, stream)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8. Save it as CSV UTF-8") from error


def _columns(path: Path, stream: TextIO) -> Iterator[dict[str, list[str]]]:
    """Yield the first chunk even if it has no rows, since its columns are looked at."""
    lines = (line for line in csv.reader(stream, strict=True) if line)
    names = [name.strip() for name in next(lines, [])]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: a column stands twice in {','.join(names)}. Remove one")
    for number in count():
        rows = list(islice(lines, CHUNK_ROWS))
        if number and not rows:
            return
        wrong = next((k for k, row in enumerate(rows) if len(row) != len(names)), None)
        if wrong is not None:
            row, cells = 2 + number * CHUNK_ROWS + wrong, len(rows[wrong])
            raise UserError(f"{path}: row {row} has {cells} cells, the header {len(names)}. Correct the row")
        cells_of = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
        yield dict(zip(names, cells_of, strict=True))


class _CsvSink:
    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path = path
        self._writer = csv.writer(stream)  # its line ends make it quote those in cells
        self._begun = False

    def write(self, columns: dict[str, Any]) -> None:
        if not self._begun:
            self._writer.writerow(columns)
            self._begun = True
        self._writer.writerows(zip(*(self._cells(*item) for item in columns.items()), strict=True))

    def _cells(self, name: str, column: Any) -> list[Any]:
        return column if isinstance(column, list) else parquet.texts(self._path, name, column)
