"""`models`: which there are, what they learnt from, whether they are sound; and how others come to be among them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import Annotated

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import BAD_INPUT, exit_codes
from comir_batch.cli.tables import print_table

app = typer.Typer(name="models", help="The models that are installed.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the shipped models and your own."""
    with exit_codes():
        from comir_batch.representation.store import known_models, unreadable_models

        rows = [
            (
                model.card.name,
                " + ".join(network.modality for network in model.card.modalities),
                f"{model.card.mpp:g}",
                str(model.card.slides),
                "shipped" if model.shipped else "yours",
                model.card.licence,
            )
            for model in known_models()
        ]
        print_table("models", ("name", "modalities", "µm/px", "slides", "from", "licence"), rows)
        for folder, wrong in unreadable_models().items():
            typer.echo(f"left out: {wrong}, or delete it with: comir-batch models remove {folder}", err=True)


@app.command()
def show(name: options.ModelName) -> None:
    """Print a model's card as JSON: what it learnt from, what it has not seen, its figures and licence."""
    with exit_codes():
        from comir_batch.representation.store import find_model

        typer.echo(find_model(name).card.model_dump_json(indent=2))


@app.command()
def verify(name: options.ModelName) -> None:
    """Check a model: its weights' digest and numbers, the halo by an impulse, and that blocks equal the whole."""
    with exit_codes():
        from comir_batch.representation.store import find_model
        from comir_batch.representation.verify import verify as checks_of

        checks = list(checks_of(find_model(name)))
        print_table(name, ("check", "", "found"), [(check.name, check.state, check.found) for check in checks])
        if any(check.state == "failed" for check in checks):
            raise typer.Exit(BAD_INPUT)


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="Folder with weights and card, as `train` writes it.")],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of one of yours.")] = False,
) -> None:
    """Check a model and copy it to your own, where its name is enough: $COMIR_BATCH_MODELS, else your data folder."""
    with exit_codes():
        from comir_batch.core.errors import ModelError
        from comir_batch.representation.store import Model, add_model, read_card
        from comir_batch.representation.verify import verify as checks_of

        model = Model(read_card(folder), folder.resolve())
        wrong = [check for check in checks_of(model) if check.state == "failed"]
        if wrong:
            raise ModelError(f"{folder} was not added: {wrong[0].name}: {wrong[0].found}")
        typer.echo(f"{model.card.name} is now yours, in {add_model(model, replace=replace)}")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of one of your own models.")]) -> None:
    """Delete one of your own models."""
    with exit_codes():
        from comir_batch.representation.store import remove_model

        typer.echo(f"{remove_model(name)} is deleted")


@app.command("import")
def import_(  # noqa: PLR0913  a parameter an option
    checkpoint: Annotated[Path, typer.Argument(help="File that the training of the method's authors saved.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model.")],
    name: Annotated[str, typer.Option(help="Name of the model.")],
    modalities: Annotated[tuple[str, str], typer.Option(metavar="A B", help="Modalities of modelA and modelB.")],
    mpp: Annotated[float, typer.Option(min=1e-9, metavar="UM", help="Pixel size that it was trained at.")],
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "not stated",
    full: Annotated[
        float | None, typer.Option(min=1e-9, help="Pixel value that became 1 in training; else the type's largest.")
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(metavar="MODALITY", help="Take log(1 + x) of it, where the file does not say so; repeatable."),
    ] = None,
) -> None:
    """Make a model of a checkpoint of the method's authors; nothing in the file is executed."""
    with exit_codes():
        from comir_batch.representation.import_original import Facts, import_original

        facts = Facts(name, modalities, mpp, licence, full, tuple(log or ()))
        card = import_original(checkpoint, out, facts)
        typer.echo(f"{card.name} is in {out}; check it with: comir-batch models verify {out}")
