"""`render`: a run as job scripts."""

from __future__ import annotations

import shlex
from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.invocation import invocation
from comir_batch.cli.run_commands import image_options, require_tiff
from comir_batch.cli.settings import overrides


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("render", rich_help_panel="Runs and sites")(render)


def render(  # noqa: PLR0913  a parameter an option
    manifest: options.Manifest,
    *,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="Site profile: a name (see profiles list) or a TOML file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the scripts.")],
    run_directory: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Run directory; `run` in the scripts' folder by default."),
    ] = None,
    config: options.Config = None,
    model: options.Model = None,
    settings: options.Settings = None,
    queue_timeout: options.QueueTimeout = None,
    output_mpp: options.OutputMpp = None,
    no_images: options.NoImages = False,
    ome_tiff: options.OmeTiff = False,
    only_ome_tiff: options.OnlyOmeTiff = False,
    compression: options.Compression = None,
    warp_rejected: options.WarpRejected = False,
    keep_work: options.KeepWork = False,
    skip_bad_rows: options.SkipBadRows = False,
) -> None:
    """Write a run as job scripts, where jobs cannot be submitted from here; they need sh, sbatch and apptainer."""
    given = {
        "model": model,
        "execution.queue_timeout_s": queue_timeout,
        **image_options(output_mpp, compression, no_images=no_images, tiff=ome_tiff, only_tiff=only_ome_tiff),
        "export.warp_rejected": warp_rejected or None,
    }
    flags = {"--keep-work": keep_work, "--skip-bad-rows": skip_bad_rows}
    with exit_codes():
        from comir_batch.core.config_file import load_config
        from comir_batch.pipeline.rendering import RenderRequest, render_run

        resolved = load_config(config, overrides(given, settings))
        require_tiff(compression, resolved)
        directory = run_directory or out / "run"
        words = tuple(flag for flag, wanted in flags.items() if wanted)
        request = RenderRequest(manifest, profile, out, directory, resolved, words, skip_bad_rows)
        submit = render_run(request)
        typer.echo(
            f"wrote {submit.parent}\n"
            f"submit:  {shlex.join(['sh', str(submit)])}\n"
            f"look:    {invocation()} {shlex.join(['status', str(directory)])}\n"
            f"cancel:  {shlex.join(['sh', str(submit.with_name('cancel.sh'))])}"
        )
