"""`run`, and a command for each stage: the same run with another target."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides, require_cluster
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.run import RunRequest, RunSummary

STAGES = {
    "chunk": "Rewrite the working level of each slide as sharded Zarr.",
    "represent": "Compute the representations (CoMIRs) of each slide.",
    "register": "Find the transform of each pair.",
    "judge": "Judge each transform: accept, review or reject.",
    "warp": "Resample the moving slides on the fixed slides' grids.",
    "export": "Publish aligned pyramids and transforms.",
    "report": "Write the reports; the whole run.",
}
_INTERRUPTED = 130
_HERE = ("local", "serial")  # executors whose tasks run in this installation


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("run")(run)
    for stage, summary in STAGES.items():
        text = f"{summary} What is missing before it is run too; settings come from RUN/run.json."
        app.command(stage, help=text, short_help=summary, rich_help_panel="Single stages")(_stage_command(stage))


def run(  # noqa: PLR0913  a parameter an option
    manifest: options.Manifest,
    *,
    out: options.Out,
    config: options.Config = None,
    model: options.Model = None,
    settings: options.Settings = None,
    executor: options.Executor = None,
    profile: options.Profile = None,
    scheduler_file: options.SchedulerFile = None,
    queue_timeout: options.QueueTimeout = None,
    workers: options.Workers = None,
    device: options.Device = None,
    output_mpp: options.OutputMpp = None,
    no_images: options.NoImages = False,
    ome_tiff: options.OmeTiff = False,
    only_ome_tiff: options.OnlyOmeTiff = False,
    compression: options.Compression = None,
    warp_rejected: options.WarpRejected = False,
    keep_work: options.KeepWork = False,
    skip_bad_rows: options.SkipBadRows = False,
) -> None:
    """Register every pair of a manifest, or go on where an earlier run into the same directory stopped."""
    given = {
        "model": model,
        **execution_options(executor, profile, scheduler_file, queue_timeout),
        "execution.workers": workers,
        "execution.device": device,
        **image_options(output_mpp, compression, no_images=no_images, tiff=ome_tiff, only_tiff=only_ome_tiff),
        "export.warp_rejected": warp_rejected or None,
    }
    with exit_codes():
        from comir_batch.core.config_file import load_config

        resolved = load_config(config, overrides(given, settings))  # wrong settings need no torch to be told
        require_tiff(compression, resolved)
        require_cluster(profile, resolved)

        from comir_batch.pipeline.run import RunRequest

        execute(
            RunRequest(
                manifest, out, resolved, keep_work=keep_work, skip_bad_rows=skip_bad_rows, command=tuple(sys.argv)
            )
        )


def execution_options(
    executor: str | None, profile: str | None, scheduler_file: Path | None, queue_timeout: float | None
) -> dict[str, Any]:
    """Return the options that say where the work is done, by dotted key of the settings."""
    return {
        "execution.executor": executor,
        "execution.profile": profile,
        "execution.scheduler_file": None if scheduler_file is None else str(scheduler_file),
        "execution.queue_timeout_s": queue_timeout,
    }


def image_options(
    output_mpp: float | None, compression: str | None, *, no_images: bool, tiff: bool, only_tiff: bool
) -> dict[str, Any]:
    """Return the options that say what aligned images are written, by dotted key of the settings."""
    return {
        "warp.mpp": output_mpp,
        "export.images": False if no_images else None,
        "export.ome_zarr": False if only_tiff else None,
        "export.ome_tiff": tiff or only_tiff or None,
        "export.tiff_compression": compression,
    }


def require_tiff(compression: str | None, config: RunConfig) -> None:
    """Refuse a codec for an image that is not written.

    Raises
    ------
    ConfigError
        If that was asked for.
    """
    from comir_batch.core.errors import ConfigError

    if compression is not None and not config.export.ome_tiff:
        raise ConfigError("--compression is the codec of aligned.ome.tif, and none is written; add --ome-tiff")


def _stage_command(stage: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913  a parameter an option
        run_directory: options.RunDirectory,
        *,
        settings: options.Settings = None,
        executor: options.Executor = None,
        profile: options.Profile = None,
        scheduler_file: options.SchedulerFile = None,
        queue_timeout: options.QueueTimeout = None,
        workers: options.Workers = None,
        device: options.Device = None,
        skip_bad_rows: options.SkipBadRows = False,
    ) -> None:
        given = {
            **execution_options(executor, profile, scheduler_file, queue_timeout),
            "execution.workers": workers,
            "execution.device": device,
        }
        with exit_codes():
            from comir_batch.core.config_file import load_config
            from comir_batch.pipeline.run import RunRequest, earlier_run

            earlier = earlier_run(run_directory)
            resolved = load_config(None, overrides(given, settings, earlier.settings))
            require_cluster(profile, resolved)
            execute(
                RunRequest(
                    earlier.manifest,
                    run_directory,
                    resolved,
                    stage,
                    keep_work=earlier.keep_work,
                    skip_bad_rows=skip_bad_rows or earlier.skip_bad_rows,
                    command=tuple(sys.argv),
                )
            )

    return command


def execute(request: RunRequest) -> None:
    """Run, show progress and the results, and end with the run's exit code."""
    from comir_batch.cli.progress import show_progress
    from comir_batch.core.events import EventBus
    from comir_batch.execution.start import start_executor
    from comir_batch.execution.stop import Existence, StopRequest
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.packages import require_computing
    from comir_batch.pipeline.run import run as run_pipeline

    if request.config.execution.executor in _HERE:
        require_computing()
    layout = Layout(request.out.resolve())
    wanted = Existence(layout.cluster.cancel)
    stop = StopRequest(_say_stopping, drain_s=request.config.execution.drain_s, wanted=wanted)
    with show_progress() as subscriber, stop.on_signals():
        try:
            summary = run_pipeline(request, EventBus(subscriber), partial(start_executor, stop=stop))
        except KeyboardInterrupt as interrupt:
            typer.echo("comir-batch: stopped at once; the same command resumes the run", err=True)
            raise typer.Exit(stop.exit_code or _INTERRUPTED) from interrupt
    _print_summary(summary, layout, request.target)
    raise typer.Exit(summary.exit_code)


def _say_stopping() -> None:
    # Past Python's buffers, which the signal may have interrupted in the middle of a write.
    try:
        os.write(sys.stderr.fileno(), b"comir-batch: stopping in order; a second signal stops at once\n")
    except OSError:  # the terminal has gone, and what is still said goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())


def _print_summary(summary: RunSummary, layout: Layout, target: str) -> None:
    from comir_batch.cli.progress import joined

    rows: list[tuple[Any, ...]] = [
        (result.pair_id, result.verdict or "-", f"{result.seconds:.0f} s", joined(result.reasons))
        for result in summary.results
    ]
    title = f"{len(rows)} {'pair' if len(rows) == 1 else 'pairs'} in {summary.seconds:.0f} s"
    print_table(title, ("pair_id", "verdict", "work", "reasons"), rows)
    if target == "report":
        typer.echo(f"results: {layout.results_csv}\nreport:  {layout.report}")
