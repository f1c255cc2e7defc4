"""`models`: which there are, and what they learnt from."""

from __future__ import annotations

from typing import Annotated

import typer

from comir_batch.cli.failures import exit_codes
from comir_batch.cli.tables import print_table

app = typer.Typer(name="models", help="The models that are installed.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the shipped models."""
    with exit_codes():
        from comir_batch.representation.store import list_models

        rows = [
            (
                card.name,
                " + ".join(network.modality for network in card.modalities),
                f"{card.mpp:g}",
                str(card.slides),
                card.licence,
            )
            for card in list_models()
        ]
        print_table("models", ("name", "modalities", "µm/px", "slides", "licence"), rows)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name, or folder, of a model.")]) -> None:
    """Print a model's card as JSON: what it learnt from, what it has not seen, its figures and licence."""
    with exit_codes():
        from comir_batch.representation.store import find_model

        typer.echo(find_model(name).card.model_dump_json(indent=2))
