"""`review` and `rerun`: the way back for what went wrong."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.run_commands import execute, execution_options
from comir_batch.cli.settings import overrides, require_cluster

PairId = Annotated[str, typer.Argument(metavar="PAIR", help="Its pair_id.")]
PairIds = Annotated[list[str], typer.Option("--pair", metavar="PAIR", help="A pair_id; repeatable.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("review")(review)
    app.command("rerun")(rerun)


def review(
    run_directory: options.RunDirectory,
    pair: PairId,
    verdict: Annotated[Literal["accept", "reject"], typer.Argument(help="What you decide.")],
    *,
    note: Annotated[str, typer.Option(help="Why; stands in results.csv and in the report.")] = "",
) -> None:
    """Decide on a pair after you have looked at it; it stands until the pair is registered anew."""
    with exit_codes():
        from comir_batch.core.verdict import Verdict
        from comir_batch.pipeline.layout import Layout
        from comir_batch.pipeline.review import review as decide

        decision = decide(run_directory, pair, Verdict(verdict), note, _say)
        typer.echo(f"{pair}: {decision.sentence}")
        files = Layout(run_directory.resolve()).pair(pair)
        there = files.image_metadata.is_file() or files.aligned_tiff.is_file()
        if verdict == "accept" and not there:
            typer.echo(f"its aligned images are not there yet: comir-batch report {run_directory} makes them")
        if verdict == "reject" and there:
            typer.echo(f"its aligned images stay where they are: {files.folder}")


def rerun(  # noqa: PLR0913  a parameter an option
    run_directory: options.RunDirectory,
    *,
    pair: PairIds,
    settings: options.Settings = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was set for these pairs before.")] = False,
    executor: options.Executor = None,
    profile: options.Profile = None,
    scheduler_file: options.SchedulerFile = None,
    queue_timeout: options.QueueTimeout = None,
    workers: options.Workers = None,
    device: options.Device = None,
    skip_bad_rows: options.SkipBadRows = False,
) -> None:
    """Run again with settings for some pairs alone, which later runs into the same directory keep."""
    if not settings and not forget:
        raise typer.BadParameter("there is nothing to change: give --set or --forget", param_hint="--set")
    given = {
        **execution_options(executor, profile, scheduler_file, queue_timeout),
        "execution.workers": workers,
        "execution.device": device,
    }
    with exit_codes():
        from comir_batch.core.config_file import load_config
        from comir_batch.pipeline.rerun import set_by_hand
        from comir_batch.pipeline.run import RunRequest, earlier_run, inspect_request

        earlier = earlier_run(run_directory)
        resolved = load_config(None, overrides(given, None, earlier.settings))
        require_cluster(profile, resolved)
        if forget:
            set_by_hand(run_directory, pair, {}, resolved, _say)
        if settings:
            inspected = inspect_request(earlier.manifest, resolved, skip_bad_rows=skip_bad_rows).pairs
            set_by_hand(run_directory, pair, overrides({}, settings), resolved, _say, inspected)
        execute(
            RunRequest(
                earlier.manifest,
                run_directory,
                resolved,
                keep_work=earlier.keep_work,
                skip_bad_rows=skip_bad_rows or earlier.skip_bad_rows,
                command=tuple(sys.argv),
            )
        )


def _say(sentence: str) -> None:
    typer.echo(f"comir-batch: {sentence}", err=True)
