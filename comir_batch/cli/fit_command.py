"""`transform fit`: a transform from landmarks, to start a registration with or to use as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from comir_batch.cli.failures import exit_codes, require_new

Landmarks = Annotated[Path, typer.Argument(metavar="FIXED", help="CSV with x_um,y_um, or x_px,y_px: points.")]
Others = Annotated[Path, typer.Argument(metavar="MOVING", help="The same points on the moving slide, in this order.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A transform.json; must not be there yet.")]
Mpp = Annotated[float | None, typer.Option(min=1e-9, metavar="UM", help="Pixel size, where points are in pixels.")]


def add_to(app: typer.Typer) -> None:
    """Add the command to the sub-program."""
    app.command("fit")(fit)


def fit(
    fixed: Landmarks,
    moving: Others,
    out: Out,
    *,
    kind: Annotated[Literal["rigid", "similarity", "affine"], typer.Option(help="What is fitted.")] = "rigid",
    mirrored: Annotated[bool, typer.Option("--mirrored", help="The moving slide lies face down.")] = False,
    fixed_mpp: Mpp = None,
    moving_mpp: Mpp = None,
) -> None:
    """Fit a transform to landmarks, and say how far from them it stays; initial_transform of a manifest takes it."""
    with exit_codes("start again"):
        import numpy as np

        from comir_batch.core.geometry import Grid
        from comir_batch.core.point_fit import fit_points
        from comir_batch.core.transform import Composite
        from comir_batch.io.tables import read_points
        from comir_batch.io.transform_files import write_json

        require_new(out)
        source, target = (
            read_points(path, None if mpp is None else Grid(1, 1, mpp, mpp))
            for path, mpp in ((fixed, fixed_mpp), (moving, moving_mpp))
        )
        found = fit_points(kind, source, target, mirrored=mirrored)
        write_json(Composite((found,)), out)
        errors = np.linalg.norm(found.map(source) - target, axis=1)
        middle, worst = np.median(errors), errors.max()
        typer.echo(f"{out}: {kind}, {len(errors)} points, {middle:.3g} µm in the median, {worst:.3g} µm at most")
