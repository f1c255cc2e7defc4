"""Parquet, through pyarrow, which only those who use it need."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_BATCH_ROWS = 65536


def read_columns(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the columns of some rows as Arrow's arrays; the first have no rows, so that the names are always seen.

    Raises
    ------
    UserError
        If there is no such file, it is no Parquet, or pyarrow is missing.
    """
    arrow = _library(path)
    try:
        with arrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            yield dict(zip(file.schema_arrow.names, file.schema_arrow.empty_table().columns, strict=True))
            for batch in file.iter_batches(_BATCH_ROWS):
                yield dict(zip(batch.schema.names, batch.columns, strict=True))
    except FileNotFoundError as error:
        raise UserError(f"{path}: No such file or directory. Check the path") from error
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file, or a damaged one. Write it again") from error


def numbers(path: Path, column: Any) -> NDArray[np.float64]:
    """Return a column as ``(N,)`` float64, NaN where it has none; raises UserError if it holds no numbers."""
    types = _library(path).types
    kind = column.type
    if not (types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind)):
        raise UserError(f"{path}: a column of coordinates is of type {kind}. Store numbers")
    return np.asarray(column.cast("float64").to_numpy(zero_copy_only=False), dtype=np.float64)


def texts(path: Path, name: str, column: Any) -> list[str | None]:
    """Return the cells of a column as text; raises UserError if they are lists or the like."""
    arrow = _library(path)
    try:
        return list(column.cast(arrow.string()).to_pylist())
    except arrow.ArrowException as error:
        raise UserError(f"{path}: column {name} of type {column.type} has no place in CSV. Write .parquet") from error


class ParquetSink:
    """Appends rows to a Parquet file; columns of text from a CSV are stored as text."""

    def __init__(self, arrow: Any, path: Path) -> None:
        self._arrow, self._path = arrow, path
        self._writer: Any = None

    def write(self, columns: dict[str, Any]) -> None:
        """Append rows; the first ones say the types."""
        table = self._arrow.table({name: self._stored(column) for name, column in columns.items()})
        if self._writer is None:
            self._writer = self._arrow.parquet.ParquetWriter(self._path, table.schema)
        if table.num_rows:
            self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def _stored(self, column: Any) -> Any:
        if not isinstance(column, list):
            return column
        text = any(isinstance(cell, str) for cell in column)
        return self._arrow.array(column, type=self._arrow.string() if text else self._arrow.float64())


@contextmanager
def create(path: Path, partial: Path) -> Iterator[ParquetSink]:
    """Open a file to be written chunk by chunk under another name than messages tell."""
    sink = ParquetSink(_library(path), partial)
    try:
        yield sink
    finally:
        sink.close()


def _library(path: Path) -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415  an extra
        import pyarrow.parquet  # noqa: PLC0415  loads `pa.parquet`
    except ModuleNotFoundError as error:
        remedy = "Install comir-batch[parquet], or save the table as CSV"
        raise UserError(f"{path}: Parquet needs pyarrow, which is not installed. {remedy}") from error
    return pa
