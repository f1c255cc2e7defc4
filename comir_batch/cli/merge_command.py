"""`merge`: all slides of one fixed slide as one image."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes, require_new


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("merge")(merge)


def merge(
    run_directory: options.RunDirectory,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="IMAGE", help="A .ome.zarr or a .ome.tif.")],
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="PAIR", help="A pair_id; repeatable. By default all pairs with an aligned image."),
    ] = None,
) -> None:
    """Write a fixed slide and the slides that a run has aligned to it as one image of many channels."""
    with exit_codes("start again"):
        from comir_batch.pipeline.merging import merge as write

        require_new(out)
        merged = write(run_directory, out, pair or ())
        size = f"{merged.grid.width} x {merged.grid.height} pixels"
        typer.echo(f"{out}: {size}, {len(merged.channels)} channels: {', '.join(merged.channels)}")
