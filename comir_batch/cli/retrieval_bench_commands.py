"""`bench retrieval`, `place`, `pairing`, `retrieval-speed`: crops found in galleries and slides, and folders paired."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer resolves the annotations
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, TypeVar

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.settings import overrides
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest

_Request = TypeVar("_Request")
_Made = TypeVar("_Made")
_Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Of the fields, their order and their poses.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the sub-program."""
    app.command("retrieval")(retrieval)
    app.command("place")(place)
    app.command("pairing")(pairing)
    app.command("retrieval-speed")(retrieval_speed)


def _watched(
    measure: Callable[[_Request, StopRequest, Subscriber, Callable[[str], object]], _Made], request: _Request
) -> _Made:
    """Measure, with progress on the terminal, until it is done or a signal asks to stop."""
    from comir_batch.cli.progress import watched

    with watched() as (stop, subscriber):
        return measure(request, stop, subscriber, lambda text: typer.echo(text, err=True))


def retrieval(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    pairs: options.AlignedPairs,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes retrieval.json and retrieval.md.")],
    count: Annotated[int, typer.Option(min=1, help="Fields that are looked for, in each direction.")] = 30,
    distractors: Annotated[int, typer.Option(min=1, help="Other fields in the gallery.")] = 200,
    whole: options.WholeSlides = False,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What is measured; again for each. An unknown one: all names."),
    ] = None,
    seed: _Seed = 0,
) -> None:
    """Look for crops of one modality among fields of the other: by visual words, by cells, raw and represented."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.retrieval import COLUMNS, RetrievalRequest, measure_retrieval
        from comir_batch.bench.retrieval_methods import USUAL
        from comir_batch.core.config import ExecutionConfig
        from comir_batch.representation.store import find_model

        here = ExecutionConfig(executor="serial", device="cpu")
        chosen = tuple(method or USUAL)
        request = RetrievalRequest(find_model(model), pairs, out, here, count, distractors, seed, whole, chosen)
        rows = _watched(measure_retrieval, request)
        print_table("retrieval", COLUMNS, [row.cells() for row in rows])
        typer.echo(f"table: {out / 'retrieval.md'}")


def place(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    pairs: options.AlignedPairs,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes fields, indexes, and place.md.")],
    count: Annotated[int, typer.Option(min=1, help="Fields of each size and direction.")] = 30,
    side: Annotated[
        list[int] | None, typer.Option(min=48, help="Of the fields, in pixels of the model's pixel size; repeatable.")
    ] = None,
    whole: options.WholeSlides = False,
    look_up: Annotated[
        Literal["auto", "all", "shortlist"], typer.Option(help="Compare all places, or a shortlist; as of query.")
    ] = "auto",
    seed: _Seed = 0,
    settings: options.Settings = None,
) -> None:
    """Look for fields of one modality in whole slides of the other, at any angle, mirrored or not, as query does."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.place import COLUMNS, PlaceRequest, measure_places
        from comir_batch.core.config_file import load_config
        from comir_batch.representation.store import find_model

        config = load_config(None, overrides({"execution.device": "cpu"}, settings))
        sides = tuple(side or (256, 128))
        request = PlaceRequest(find_model(model), pairs, out, config, count, sides, seed, whole, look_up)
        rows = _watched(measure_places, request)
        print_table("place", COLUMNS, [row.cells() for row in rows])
        typer.echo(f"table: {out / 'place.md'}")


def pairing(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    pairs: options.AlignedPairs,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Takes the fields, and pairing.md.")],
    count: Annotated[int, typer.Option(min=1, help="Fields of each modality that have a partner.")] = 40,
    alone: Annotated[int, typer.Option(min=0, help="More of each that have none.")] = 5,
    side: Annotated[int, typer.Option(min=48, help="Of the fields, in pixels of the model's pixel size.")] = 128,
    whole: options.WholeSlides = False,
    seed: _Seed = 0,
    settings: options.Settings = None,
) -> None:
    """Pair two shuffled folders of fields, some of which have no partner, and count what is said rightly."""
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.bench.pairing import COLUMNS, PairingRequest, measure_pairing
        from comir_batch.core.config_file import load_config
        from comir_batch.representation.store import find_model

        config = load_config(None, overrides({"execution.device": "cpu"}, settings))
        request = PairingRequest(find_model(model), pairs, out, config, count, alone, side, seed, whole)
        measured = _watched(measure_pairing, request)
        print_table("pairing", COLUMNS, [tuple(map(str, row)) for row in measured.rows])
        typer.echo(f"tables: {out / 'pairing.md'}")


def retrieval_speed(
    patches: Annotated[list[int] | None, typer.Option(min=1, help="Patches of a gallery; again for more.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Of each look-up; the quickest counts.")] = 5,
    *,
    all_places: Annotated[bool, typer.Option("--all-places", help="Time look-ups of all places, too.")] = False,
) -> None:
    """Time look-ups in made-up galleries, by default of 1000, 10,000 and 100,000 patches, and size their indexes."""
    with exit_codes():
        from comir_batch.bench.retrieval_speed import COLUMNS, measure_speed

        rows = [
            speed.cells() for speed in measure_speed(patches or [1000, 10_000, 100_000], repeats, all_places=all_places)
        ]
        print_table("retrieval-speed", COLUMNS, rows)
