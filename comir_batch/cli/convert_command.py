"""`transform convert` and `transform dialects`: a transform for another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from comir_batch.cli.failures import exit_codes
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.pipeline.conversion import Written

Fixed: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="SLIDE", help="The fixed slide, for its size; a run's folder knows it.")
]
FixedMpp: TypeAlias = Annotated[float | None, typer.Option(min=1e-9, metavar="UM", help="Its pixel size.")]
Moving: TypeAlias = Annotated[Path | None, typer.Option(metavar="SLIDE", help="The moving slide, likewise.")]
MovingMpp: TypeAlias = Annotated[float | None, typer.Option(min=1e-9, metavar="UM", help="Its pixel size.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the sub-program."""
    app.command("convert")(convert)
    app.command("dialects")(dialects)


def convert(  # noqa: PLR0913  a parameter an option
    transform: Annotated[
        Path,
        typer.Argument(
            metavar="T", help="transform.json, ITK's .h5 or .tfm (fixed to moving), or a pair's folder of a run."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File (folder for elastix and ngff) to make.")],
    *,
    to: Annotated[str, typer.Option("--to", help="Dialect: see comir-batch transform dialects.")],
    inverse: Annotated[
        bool, typer.Option("--inverse", help="The other direction than the dialect's usual one.")
    ] = False,
    fixed: Fixed = None,
    fixed_mpp: FixedMpp = None,
    moving: Moving = None,
    moving_mpp: MovingMpp = None,
    spacing: Annotated[
        float, typer.Option(min=0, help="µm between samples of a field, or landmarks; 0: choose.")
    ] = 0.0,
    tolerance: Annotated[float | None, typer.Option(min=0, help="Refuse what would lie further off, in µm.")] = None,
) -> None:
    """Write a transform in another program's dialect, and say how far what is written lies from it."""
    with exit_codes("start again"):
        from comir_batch.pipeline.conversion import write
        from comir_batch.pipeline.dialects import dialect_named
        from comir_batch.pipeline.encoding import Job
        from comir_batch.pipeline.known_slides import Given, Known

        dialect = dialect_named(to)
        known = Known.read(transform, Given(fixed, fixed_mpp), Given(moving, moving_mpp))
        job = Job(known.transform, dialect.forward != inverse, known.grid, spacing)
        typer.echo(_said(write(job, dialect, out, tolerance)))


def dialects() -> None:
    """List the dialects with their conventions."""
    with exit_codes():
        from comir_batch.pipeline.dialects import DIALECTS

        rows = [
            (d.name, " ".join(d.suffixes) or "folder", d.maps, d.unit, f"{d.centre:g}", d.holds, d.readers)
            for d in DIALECTS.values()
        ]
        columns = ("dialect", "file", "maps points of", "unit", "first centre", "holds", "read by")
        print_table("Dialects of transforms (--inverse turns the direction)", columns, rows)


def _said(written: Written) -> str:
    dialect = written.dialect
    lost = f"; folded at {written.lost} knots, where the nearest inverse stands" if written.lost else ""
    return (
        f"{written.path}: {dialect.name}, maps {written.maps}, in {dialect.unit}s with the first centre at "
        f"{dialect.centre:g}; off by {written.median_um:.3g} µm in the median, {written.max_um:.3g} µm at most{lost}"
    )
