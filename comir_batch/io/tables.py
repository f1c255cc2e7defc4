"""Tables of points: landmarks."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

_MICROMETRES, _PIXELS = ["x_um", "y_um"], ["x_px", "y_px"]


def read_points(path: Path, grid: Grid | None) -> NDArray[np.float64]:
    """Return points in µm, ``(N, 2)`` float64, ``(x, y)``, in the order of the rows.

    Parameters
    ----------
    path : Path
        A CSV in UTF-8 whose header is ``x_um,y_um``, or ``x_px,y_px`` for pixels of level 0 (whole numbers are pixel
        centres).
    grid : Grid or None
        Level 0 of the slide, to convert pixels.

    Raises
    ------
    UserError
        If the file is missing, has another header or no rows, or a cell is no finite number; the message names the row.
    """
    points, in_pixels = _points(path)
    if not in_pixels:
        return points
    if grid is None:
        raise UserError(f"{path}: its points are in pixels, and the pixel size is not known. Give it, or x_um,y_um")
    return grid.to_um(points)


def check_points(path: Path) -> None:
    """Raise UserError unless `read_points` can read the table."""
    _points(path)


def _points(path: Path) -> tuple[NDArray[np.float64], bool]:
    """Return points as they are written, and whether they are in pixels."""
    header, rows = _read(path)
    if header not in (_MICROMETRES, _PIXELS):
        raise UserError(f"{path}: its header is {','.join(header)}. Write x_um,y_um or x_px,y_px")
    if not rows:
        raise UserError(f"{path}: no points below the header. Write one row a point")
    points = np.array([_point(path, number, row) for number, row in enumerate(rows, start=2)])
    return points, header == _PIXELS


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream, strict=True) if line]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV in UTF-8. Save it as CSV UTF-8") from error
    return ([cell.strip() for cell in lines[0]], lines[1:]) if lines else ([], [])


def _point(path: Path, number: int, row: list[str]) -> tuple[float, float]:
    try:
        x, y = map(float, row)
    except ValueError as error:
        raise UserError(f"{path}: row {number} is {','.join(row)}. Write two numbers") from error
    if not np.isfinite([x, y]).all():
        raise UserError(f"{path}: row {number} is {','.join(row)}. Leave out points that are not finite")
    return x, y
