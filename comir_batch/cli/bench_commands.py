"""`bench`: measurements on pairs with a known truth."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

app = typer.Typer(name="bench", help="Measure on pairs with a known truth.", no_args_is_help=True)


@app.command("recovery")
def recovery(  # noqa: PLR0913  a parameter an option
    fixed: Annotated[Path, typer.Argument(help="A slide.")],
    moving: Annotated[Path, typer.Argument(help="A slide whose pixels lie on the first one's.")],
    *,
    modalities: Annotated[tuple[str, str], typer.Option(metavar="FIXED MOVING", help="Their modalities.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Emptied first.")],
    measured: Annotated[
        tuple[float, float, float, float],
        typer.Option(metavar="LEFT TOP RIGHT BOTTOM", help="Part to measure on, as shares of width and height."),
    ] = (0.0, 0.0, 1.0, 1.0),
    angle: Annotated[float, typer.Option(help="Turn of the moving slide in degrees.")] = 25.0,
    amplitude: Annotated[float, typer.Option(help="Largest displacement of the deformation in µm.")] = 12.0,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="Mirror it too.")] = False,
    model: options.Model = None,
    settings: options.Settings = None,
) -> None:
    """Move one slide by a known motion, run the pair from its files alone, and measure, beside plain elastix."""
    with exit_codes():
        from comir_batch.bench.known_motion import Motion
        from comir_batch.bench.recovery import AlignedPair, recover
        from comir_batch.cli.progress import show_progress
        from comir_batch.core.config import load_config

        config = load_config(None, overrides({"model": model}, settings))
        pair = AlignedPair(fixed, moving, modalities, measured)
        motion = Motion(angle_deg=angle, amplitude_um=amplitude, mirrored=mirrored)
        with show_progress() as subscriber:
            rows = recover(pair, motion, out, config, subscriber)
        print_table("recovery", ("method", "error", "note"), [(r.method, str(r.errors or "-"), r.note) for r in rows])
