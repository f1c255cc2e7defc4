"""`study`: what a choice of the training changes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(name="study", help="Train with one thing changed at a time, and compare.", no_args_is_help=True)


def _command(name: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913  a parameter an option
        pairs: Annotated[Path, typer.Argument(metavar="PAIRS", help="Manifest of aligned pairs.")],
        *,
        out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The same one resumes a study.")] = Path(
            "study"
        ),
        held_out: options.HeldOut = None,
        preset: Annotated[
            Literal["compact", "paper", "zurich"], typer.Option(help="Settings of all trainings.")
        ] = "compact",
        config: Annotated[
            Path | None, typer.Option(metavar="TOML", help="File with settings of all trainings.")
        ] = None,
        settings: options.TrainSettings = None,
        seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 1,
        fields: Annotated[int, typer.Option(min=4, help="Known transforms that each model is measured on.")] = 200,
        device: options.Device = None,
    ) -> None:
        with exit_codes():
            from comir_batch.pipeline.packages import require_computing

            require_computing()
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as for `train`
            from comir_batch.cli.progress import watched
            from comir_batch.training.config import load_train_config
            from comir_batch.training.study import StudyRequest, study

            resolved = load_train_config(preset, config, overrides({"device": device}, settings))
            request = StudyRequest(name, pairs, out, resolved, held_out, seeds, fields, tuple(sys.argv))
            with watched() as (stop, subscriber):
                trials = study(request, stop, lambda text: typer.echo(text, err=True), subscriber)
        rows = [(t.variant, str(t.seed), f"{t.success:.1%}", f"{t.rank('bottleneck'):.1f}") for t in trials]
        print_table(f"study of {name}", ("variant", "seed", "found", "rank of bottleneck"), rows)
        typer.echo(f"table:  {out / 'table.md'}\nreport: {out / 'study.html'}")

    return command


app.command("supervision", help="No supervision of the bottleneck, and the nine ways of Wetzer et al. (2023).")(
    _command("supervision")
)
app.command("symmetry", help="No, rotational and mirrored equivariance.")(_command("symmetry"))
