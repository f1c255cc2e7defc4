"""`plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes, print_problems
from comir_batch.cli.run_commands import image_options
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.plan import Plan


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("plan")(plan)


def plan(  # noqa: PLR0913  a parameter an option
    manifest: options.Manifest,
    *,
    out: options.Out = Path("run"),
    config: options.Config = None,
    model: options.Model = None,
    settings: options.Settings = None,
    executor: options.Executor = None,
    profile: options.Profile = None,
    device: options.Device = None,
    output_mpp: options.OutputMpp = None,
    no_images: options.NoImages = False,
    ome_tiff: options.OmeTiff = False,
    only_ome_tiff: options.OnlyOmeTiff = False,
    compression: options.Compression = None,
    skip_bad_rows: options.SkipBadRows = False,
) -> None:
    """Print what a run would do, from headers alone: models, tasks, memory of a task, disk. Nothing is written."""
    with exit_codes():
        from comir_batch.core.config import load_config
        from comir_batch.pipeline.plan import make_plan
        from comir_batch.pipeline.run import inspect_request

        given = {
            "model": model,
            "execution.executor": executor,
            "execution.profile": profile,
            "execution.device": device,
            **image_options(output_mpp, compression, no_images=no_images, tiff=ome_tiff, only_tiff=only_ome_tiff),
        }
        resolved = load_config(config, overrides(given, settings))
        inspection = inspect_request(manifest, resolved, skip_bad_rows=skip_bad_rows)
        if inspection.problems:
            print_problems(inspection.problems)
        _print(inspection.pairs, make_plan(inspection.pairs, resolved, out))


def _print(pairs: tuple[Pair, ...], made: Plan) -> None:
    print_table("pairs", ("pair_id", "fixed", "moving", "model"), [_pair_row(pair) for pair in pairs])
    rows = [
        (
            stage.stage,
            str(stage.jobs),
            str(stage.tasks),
            str(stage.tiles or "-"),
            stage.resource,
            f"{stage.memory_mb / 1000:.1f}",
            f"{stage.disk_gb:.2f}",
        )
        for stage in made.stages
    ]
    head = ("stage", "slides or pairs", "tasks at most", "tiles at most", "workers", "GB a task", "GB written")
    print_table("stages", head, rows)
    typer.echo(f"at most {made.disk_gb:.2f} GB are written before compression; {made.free_gb:.0f} GB are free")


def _pair_row(pair: Pair) -> tuple[str, str, str, str]:
    sizes = [
        f"{slide.info.levels[0].width} x {slide.info.levels[0].height} px, {slide.info.mpp_x:.3g} µm/px"
        for slide in (pair.fixed, pair.moving)
    ]
    return pair.name, sizes[0], sizes[1], "none" if pair.model is None else pair.model.card.name
