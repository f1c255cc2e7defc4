"""`plan`: what a run would do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes, print_problems
from comir_batch.cli.run_commands import image_options, require_tiff
from comir_batch.cli.settings import overrides, require_cluster
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.plan import Plan, StagePlan


Like: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Run directory whose stages tell how long those of this run take."),
]


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
    like: Like = None,
) -> None:
    """Print what a run would take, from headers alone: tasks, hours, memory of a task, disk. Nothing is written."""
    with exit_codes():
        from comir_batch.core.config_file import load_config
        from comir_batch.pipeline.layout import Layout
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
        require_tiff(compression, resolved)
        require_cluster(profile, resolved)
        inspection = inspect_request(manifest, resolved, skip_bad_rows=skip_bad_rows)
        if inspection.problems:
            print_problems(inspection.problems)
        _print(inspection.pairs, make_plan(inspection.pairs, resolved, out, like), like)
        if Layout(out).run_json.is_file():
            typer.echo(f"{out} holds a run: what it has done already is counted, too")


def _print(pairs: tuple[Pair, ...], made: Plan, like: Path | None) -> None:
    print_table("pairs", ("pair_id", "fixed", "moving", "model"), [_pair_row(pair) for pair in pairs])
    head = ("stage", "slides or pairs", "tasks at most", "tiles at most", "workers")
    figures = ("CPU hours", "worker hours", "GB a task", "GB read", "GB written")
    print_table("stages", (*head, *figures), [_stage_row(stage, made) for stage in made.stages])
    for sentence in _hours(made, like):
        typer.echo(sentence)
    _print_disk(made)


def _stage_row(stage: StagePlan, made: Plan) -> tuple[str, ...]:
    hours = made.hours(stage)
    counts = (str(stage.jobs), str(stage.tasks), str(stage.tiles or "-"), stage.resource)
    memory, *sizes = (f"{stage.memory_mb / 1000:.1f}", f"{stage.read_gb:.2f}", f"{stage.disk_gb:.2f}")
    return (stage.stage, *counts, _number(hours.cpu), _number(hours.workers), memory, *sizes)


def _number(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.3g}"


def _hours(made: Plan, like: Path | None) -> Iterator[str]:
    """Yield what the hours add up to, and where they are from."""
    from comir_batch.pipeline.cost import MACHINE

    each = {stage.stage: made.hours(stage) for stage in made.stages}
    unknown = [name for name, hours in each.items() if hours.cpu is None]
    total = f"{sum(hours.cpu or 0.0 for hours in each.values()):.3g} CPU hours"
    if like is None:
        yield f"{total} in all, on {MACHINE}; plan --like RUN predicts by what a run of yours took"
    else:
        workers = sum(hours.workers or 0.0 for hours in each.values())
        yield f"{total} and {workers:.3g} worker hours in all, by what {like} took"
        if made.unrated:
            yield f"{like} does not tell of {' and '.join(made.unrated)}: those CPU hours are on {MACHINE}"
    if made.cpu_jobs:
        busy, longest = made.spread()
        yield (
            f"about {busy:.2g} hours by {made.cpu_jobs} CPU jobs at once, if none ever waits; the longest task alone "
            f"{longest:.2g}"
        )
    if unknown:
        yield f"not counted: {' and '.join(unknown)} on a GPU, which only a run tells"


def _print_disk(made: Plan) -> None:
    typer.echo(
        f"at most {made.disk_gb:.2f} GB are written before compression and {made.read_gb:.2f} GB are read, decoded; "
        f"{made.free_gb:.0f} GB are free"
    )
    if made.disk_gb > made.free_gb:
        typer.echo(
            f"warning: up to {made.disk_gb:.3g} GB would be written and {made.free_gb:.3g} GB are free. Make room, "
            "choose another --out, or write coarser images (--output-mpp) or none (--no-images)",
            err=True,
        )


def _pair_row(pair: Pair) -> tuple[str, str, str, str]:
    sizes = [
        f"{slide.info.levels[0].width} x {slide.info.levels[0].height} px, {slide.info.mpp_x:.3g} µm/px"
        for slide in (pair.fixed, pair.moving)
    ]
    return pair.name, sizes[0], sizes[1], "none" if pair.model is None else pair.model.card.name
