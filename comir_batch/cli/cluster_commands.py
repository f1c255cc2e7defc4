"""`status`, `cancel` and `doctor`: what one wants to know of a run elsewhere, and of the site that it goes to."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import BAD_INPUT, exit_codes
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from comir_batch.execution.slurm.commands import QueuedJob
    from comir_batch.pipeline.status import Status

_PANEL = "Runs and sites"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("status", rich_help_panel=_PANEL)(status)
    app.command("cancel", rich_help_panel=_PANEL)(cancel)
    app.command("doctor", rich_help_panel=_PANEL)(doctor)


def status(
    run_directory: options.RunDirectory,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how a run stands: driver, dashboard, jobs in the queue, pairs, tasks, errors. Works at any time."""
    with exit_codes():
        from comir_batch.pipeline.status import as_json as plain
        from comir_batch.pipeline.status import read_status

        found = read_status(run_directory)
        if as_json:
            typer.echo(json.dumps(plain(found), indent=2))
            return
        for name, text in _facts(found):
            typer.echo(f"{name:<10} {text}")
        if found.stages:
            rows = [(stage.stage, str(stage.done), str(stage.planned)) for stage in found.stages]
            print_table("tasks", ("stage", "done", "known so far"), rows)


def cancel(run_directory: options.RunDirectory) -> None:
    """Stop a run: ask its driver, wherever that is, then cancel the jobs that it has left. It can be resumed."""
    with exit_codes():
        from comir_batch.pipeline.cancel import cancel as stop

        stopped = stop(run_directory, typer.echo)
        if stopped.driver:
            typer.echo(f"{stopped.driver} has stopped")
        if stopped.jobs is None:
            typer.echo("SLURM's queue cannot be read here; jobs of the run that are left there end by themselves")
        elif stopped.jobs:
            typer.echo(f"{stopped.jobs} {'job' if stopped.jobs == 1 else 'jobs'} cancelled")
        if not stopped.driver and not stopped.jobs:
            typer.echo("no driver is running")
        if stopped.resume:
            typer.echo(f"resume with: {stopped.resume}")


def doctor(
    *,
    profile: options.Profile = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Submit a small job of each kind too, and look around on its node.")
    ] = False,
    wait: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long such a job may take.")] = 300.0,
) -> None:
    """Check this installation, or with --profile the site that runs are sent to; exit code 3 if something failed."""
    if submit and profile is None:
        raise typer.BadParameter("say which site: --profile NAME", param_hint="--submit")
    with exit_codes():
        from comir_batch.pipeline.doctor import check_installation, check_site

        examined = check_installation() if profile is None else check_site(profile, wait_s=wait if submit else 0.0)
        checks = list(examined)
        title = "this installation" if profile is None else f"the site {profile}"
        print_table(title, ("check", "", "found"), [(check.name, check.state, check.found) for check in checks])
        if profile is not None:
            from comir_batch.execution.tunnel import tunnel

            way = tunnel("http://127.0.0.1:8787/status")
            typer.echo(f"to see a run's dashboard from your own machine, with the port that the run tells: {way}")
        if any(check.state == "failed" for check in checks):
            raise typer.Exit(BAD_INPUT)


def _facts(found: Status) -> Iterable[tuple[str, str]]:
    from comir_batch.cli.progress import describe

    yield "run", str(found.root)
    yield "driver", _driver(found)
    if found.dashboard:
        yield "dashboard", found.dashboard
    if found.tunnel:
        yield "tunnel", found.tunnel
    if found.jobs is None:
        yield "jobs", "not known: there is no squeue here, or it gives no answer"
    elif found.jobs:
        yield "jobs", "; ".join(_grouped(found.jobs))
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
    yield "pairs", f"{found.pairs_done} of {found.pairs or '?'} done{f': {verdicts}' if verdicts else ''}"
    for error in found.errors:
        yield "error", error
    if found.last is not None:
        text = describe(found.last) or f"{found.last.job} {found.last.kind.replace('_', ' ')}".strip()
        yield "last event", f"{_ago(found.last.at)}: {text}"


def _driver(found: Status) -> str:
    if found.running:
        return f"{found.holder}, {f'for {_span(time.time() - found.since)}' if found.since else 'starting'}"
    return f"not running since {_clock(found.since)}, {_ago(found.since)}" if found.since else "not started yet"


def _grouped(jobs: Iterable[QueuedJob]) -> list[str]:
    """Return jobs by state, those that wait by SLURM's reason too."""
    groups = Counter((job.state.lower(), job.reason if job.state == "PENDING" else "") for job in jobs)
    return [f"{count} {state}{f' ({reason})' if reason else ''}" for (state, reason), count in sorted(groups.items())]


def _ago(at: float) -> str:
    return f"{_span(time.time() - at)} ago"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
