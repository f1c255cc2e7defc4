"""`train`: a model from aligned pairs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.core.card import ModelCard

_Pairs: TypeAlias = Annotated[
    Path | None, typer.Argument(metavar="[PAIRS]", help="Manifest of aligned pairs, all of the same two modalities.")
]
_FromRun: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Learn from the accepted pairs of a run instead of a manifest.")
]
_Pair: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="With --from-run: take this pair, accepted or for review; repeatable."),
]
_Preset: TypeAlias = Annotated[
    Literal["compact", "paper", "zurich"],
    typer.Option(help="Settings: ours, or those of the CoMIR paper's biomedical or aerial experiment."),
]
_Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on with the training that was stopped in --out.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("train")(train)


def train(  # noqa: PLR0913  a parameter an option
    pairs: _Pairs = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the model.")] = Path("model"),
    held_out: options.HeldOut = None,
    from_run: _FromRun = None,
    pair: _Pair = None,
    preset: _Preset = "compact",
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="File with settings of the training.")] = None,
    settings: options.TrainSettings = None,
    device: options.Device = None,
    resume: _Resume = False,
    keep_data: options.KeepData = False,
) -> None:
    """Train a model on aligned pairs; its folder gets weights, a card, and a report that says how good it is."""
    source = from_run or pairs
    if source is None or (from_run and pairs) or (pair and not from_run):
        raise typer.BadParameter("give a manifest of aligned pairs, or --from-run with or without --pair")
    with exit_codes("the same command with --resume goes on"):
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        # Torch's threads, waiting for each other in a busy loop, would starve the one that reads crops.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from comir_batch.cli.progress import watched
        from comir_batch.training.config import load_train_config
        from comir_batch.training.train import TrainRequest
        from comir_batch.training.train import train as learn

        resolved = load_train_config(preset, config, overrides({"device": device}, settings))
        request = TrainRequest(
            source,
            out,
            resolved,
            held_out,
            from_run is not None,
            tuple(pair or ()),
            resume,
            keep_data,
            tuple(sys.argv),
        )
        with watched(_say_stopping) as (stop, subscriber):
            card = learn(request, stop, lambda text: typer.echo(text, err=True), subscriber)
    _print(card, out)


def _print(card: ModelCard, out: Path) -> None:
    rows = [(name, str(value)) for name, value in card.metrics.items() if name != "measured_on"]
    print_table(f"model {card.name}", ("figure", "value"), rows)
    typer.echo(f"measured on: {card.metrics['measured_on']}")
    typer.echo(f"model:  {out}\nreport: {out / 'report.html'}")


def _say_stopping() -> None:
    # Past Python's buffers, which the signal may have interrupted in the middle of a write.
    os.write(sys.stderr.fileno(), b"comir-batch: stopping after this step; --resume goes on\n")
