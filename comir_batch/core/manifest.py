"""The manifest: a CSV with one pair of slides a row.

Only the table itself is checked here, and all of its problems are collected; opening the files is the pipeline's work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from comir_batch.core.errors import Problem
from comir_batch.core.slide import SlideSpec
from comir_batch.core.table import read_table

REQUIRED = ("pair_id", "fixed", "moving", "fixed_modality", "moving_modality")
OPTIONAL = (
    "fixed_channel",
    "moving_channel",
    "fixed_mpp",
    "moving_mpp",
    "fixed_series",
    "moving_series",
    "fixed_photometric",
    "moving_photometric",
    "fixed_mask",
    "moving_mask",
    "fixed_landmarks",
    "moving_landmarks",
    "initial_transform",
    "model",
    "registration",
)
_PAIR_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GLASS = "Write brightfield or dark, or leave it empty to let the image tell"
_REMEDIES = {
    "pair_id": "Use letters, digits, '.', '_' and '-', at most 100, the first a letter or digit",
    "registration": "Write affine, bspline or blocks, or leave it empty for bspline",
    "fixed_photometric": _GLASS,
    "moving_photometric": _GLASS,
    "fixed_mpp": "Give the pixel size of level 0 in µm, for example 0.25",
    "moving_mpp": "Give the pixel size of level 0 in µm, for example 0.25",
}


class PairRow(BaseModel):
    """One row of the manifest, with absolute paths.

    Attributes
    ----------
    row : int
        Its line in the table; the header is row 1.
    pair_id : str
        Name of the pair and of its folder.
    fixed, moving : SlideSpec
        The slides.
    fixed_modality, moving_modality : str
        Lower-case names, as model cards use them.
    model : str
        Name or folder of a model, `none`, or empty for the default.
    registration : {"affine", "bspline", "blocks"}
        How far registration goes.
    initial_transform, fixed_mask, moving_mask, fixed_landmarks, moving_landmarks : Path or None
        Optional files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    row: int
    pair_id: str
    fixed: SlideSpec
    moving: SlideSpec
    fixed_modality: str
    moving_modality: str
    model: str = ""
    registration: Literal["affine", "bspline", "blocks"] = "bspline"
    initial_transform: Path | None = None
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None


@dataclass(frozen=True)
class Manifest:
    """The good rows of a manifest, what is wrong with the others, and the pair_id of each row, as it stands there."""

    path: Path
    rows: tuple[PairRow, ...]
    problems: tuple[Problem, ...]
    pair_ids: dict[int, str] = field(default_factory=dict)


class _Cells(BaseModel):
    """The cells of one row, typed; the column's own name is the field's."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    pair_id: str
    fixed: str = Field(min_length=1)
    moving: str = Field(min_length=1)
    fixed_modality: str = Field(min_length=1)
    moving_modality: str = Field(min_length=1)
    fixed_channel: str = ""
    moving_channel: str = ""
    fixed_mpp: float | None = Field(default=None, gt=0, lt=1000)
    moving_mpp: float | None = Field(default=None, gt=0, lt=1000)
    fixed_series: int = Field(default=0, ge=0)
    moving_series: int = Field(default=0, ge=0)
    fixed_photometric: Literal["brightfield", "dark", ""] = ""
    moving_photometric: Literal["brightfield", "dark", ""] = ""
    fixed_mask: str = ""
    moving_mask: str = ""
    fixed_landmarks: str = ""
    moving_landmarks: str = ""
    initial_transform: str = ""
    model: str = ""
    registration: Literal["affine", "bspline", "blocks"] = "bspline"

    @field_validator("pair_id")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not _PAIR_ID.fullmatch(value):
            raise ValueError(f"{value!r} cannot be the name of a folder")
        return value


def read_manifest(path: Path) -> Manifest:
    """Read a manifest; relative paths are relative to its folder.

    Parameters
    ----------
    path : Path
        A CSV file in UTF-8, with or without a byte order mark, with the columns of `REQUIRED` and any of `OPTIONAL`.

    Returns
    -------
    Manifest
        Good rows, and the problems of the others.

    Raises
    ------
    ManifestError
        If the table itself cannot be used: no file, not text, no header, unknown or missing columns, no rows.
    """
    base = path.resolve().parent
    header, table = read_table(path, REQUIRED, OPTIONAL)
    rows: list[PairRow] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, cells in table:
        row, wrong = _parse_row(number, header, cells, base)
        if row is not None:
            first = seen.setdefault(row.pair_id.casefold(), number)
            if first != number:
                wrong = [
                    Problem(
                        number,
                        "pair_id",
                        f"{row.pair_id!r} is already the pair_id of row {first}",
                        "Give it another name",
                    )
                ]
        problems += wrong
        if row is not None and not wrong:
            rows.append(row)
    named = header.index("pair_id")
    pair_ids = {number: cells[named].strip() for number, cells in table if len(cells) > named}
    return Manifest(path.resolve(), tuple(rows), tuple(problems), pair_ids)


def _parse_row(number: int, header: list[str], values: list[str], base: Path) -> tuple[PairRow | None, list[Problem]]:
    if len(values) != len(header):
        remedy = (
            "Quote cells that contain a comma" if len(values) > len(header) else "Write a comma for each empty cell"
        )
        return None, [Problem(number, "-", f"has {len(values)} cells, the header {len(header)}", remedy)]
    raw = dict(zip(header, values, strict=True))
    problems = [
        Problem(number, name, f"there is no home directory for {value!r}", "Write the whole path")
        for name, value in raw.items()
        if value.startswith("~") and not _has_home(value)
    ]
    problems += [
        Problem(number, name, f"a control character in {value!r}", "Rename the file, or remove the line break or tab")
        for name, value in raw.items()
        if _CONTROL.search(value)
    ]
    if problems:
        return None, problems
    try:
        cells = _Cells.model_validate({name: value for name, value in raw.items() if value.strip() or name in REQUIRED})
    except ValidationError as error:
        return None, [_problem(number, detail["loc"][0], detail["msg"], detail["input"]) for detail in error.errors()]
    row = _row(number, cells, base)
    same = (row.fixed.path, row.fixed.series, row.fixed.channel) == (
        row.moving.path,
        row.moving.series,
        row.moving.channel,
    )
    if same:
        reason = "fixed and moving are the same image"
        return None, [Problem(number, "moving", reason, "Name two images, or two channels or series of one file")]
    return row, []


def _problem(number: int, column: object, message: str, value: object) -> Problem:
    name = str(column)
    if value == "" and name in REQUIRED:
        return Problem(number, name, "the cell is empty", "Fill it in")
    reason = message.removeprefix("Value error, ")
    return Problem(
        number,
        name,
        reason if repr(value) in reason else f"{reason} (got {value!r})",
        _REMEDIES.get(name, "Correct the cell"),
    )


def _spec(cells: _Cells, side: str, base: Path) -> SlideSpec:
    series, channel, mpp, photometric = (
        getattr(cells, f"{side}_{name}") for name in ("series", "channel", "mpp", "photometric")
    )
    return SlideSpec(_absolute(base, getattr(cells, side)), series, channel, mpp, photometric)


def _row(number: int, cells: _Cells, base: Path) -> PairRow:
    def path(cell: str) -> Path | None:
        return _absolute(base, cell) if cell else None

    return PairRow(
        row=number,
        pair_id=cells.pair_id,
        fixed=_spec(cells, "fixed", base),
        moving=_spec(cells, "moving", base),
        fixed_modality=cells.fixed_modality.lower(),
        moving_modality=cells.moving_modality.lower(),
        model=cells.model,
        registration=cells.registration,
        initial_transform=path(cells.initial_transform),
        fixed_mask=path(cells.fixed_mask),
        moving_mask=path(cells.moving_mask),
        fixed_landmarks=path(cells.fixed_landmarks),
        moving_landmarks=path(cells.moving_landmarks),
    )


def _has_home(cell: str) -> bool:
    try:
        Path(cell).expanduser()
    except RuntimeError:
        return False
    return True


def _absolute(base: Path, cell: str) -> Path:
    return (base / Path(cell).expanduser()).resolve()
