"""The command line: what there is, and nothing else. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import traceback
from io import TextIOWrapper
from typing import Annotated

import typer

import comir_batch
from comir_batch.cli import (
    bench_commands,
    cluster_commands,
    convert_command,
    diagnose_command,
    fit_command,
    merge_command,
    model_commands,
    plan_command,
    preset_commands,
    profile_commands,
    render_command,
    retrieval_commands,
    review_commands,
    run_commands,
    study_commands,
    train_command,
    transform_commands,
)

INTERNAL_ERROR = 70

app = typer.Typer(
    name="comir-batch",
    help="Registers whole-slide images of the same tissue across modalities, a manifest of pairs at a time.",
    epilog=(
        "Exit codes: 0 every pair accepted or for review; 1 some rejected or in error; 2 usage; 3 bad manifest, config "
        "or input, nothing was run; 4 all rejected or in error; 5 no workers; 70 a fault of the program; 75 stopped, "
        "the same command resumes; 130 and 143 stopped by SIGINT and SIGTERM, likewise; 141 nobody reads the output."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
run_commands.add_to(app)
review_commands.add_to(app)
merge_command.add_to(app)
plan_command.add_to(app)
train_command.add_to(app)
diagnose_command.add_to(app)
render_command.add_to(app)
retrieval_commands.add_to(app)
cluster_commands.add_to(app)
app.add_typer(model_commands.app)
app.add_typer(profile_commands.app)
app.add_typer(preset_commands.app)
app.add_typer(study_commands.app)
app.add_typer(bench_commands.app)
convert_command.add_to(transform_commands.app)
fit_command.add_to(transform_commands.app)
app.add_typer(transform_commands.app)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer's callbacks are positional
    if wanted:
        typer.echo(f"comir-batch {comir_batch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the entry point of the installed script."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names that are not UTF-8; stderr does so by itself
    try:
        app()
    except Exception:  # noqa: BLE001  code 1 would say that pairs were rejected
        traceback.print_exc()
        typer.echo("comir-batch: this is a fault of the program; what was finished is recorded", err=True)
        sys.exit(INTERNAL_ERROR)
