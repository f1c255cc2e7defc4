"""`index`, `query` and `pair`: which slide an image is from, and where in it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes, require_files
from comir_batch.cli.settings import overrides, require_cluster
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.core.config import RunConfig

_Slides = Annotated[Path, typer.Argument(metavar="SLIDES", help="CSV with slide_id, path and modality of each slide.")]
_Model = Annotated[str, typer.Option(help="Name, or folder, of a model.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("index")(index)
    app.command("query")(query)
    app.command("pair")(pair)


def index(  # noqa: PLR0913  a parameter an option
    slides: _Slides,
    *,
    model: _Model,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The index; slides are added to one.")],
    only: Annotated[bool, typer.Option("--only", help="Slides that the table does not name leave the index.")] = False,
    executor: options.Executor = None,
    workers: options.Workers = None,
    device: options.Device = None,
    profile: options.Profile = None,
    settings: options.Settings = None,
) -> None:
    """Represent slides and make an index of them, in which images of the other modality are found."""
    with exit_codes():
        from comir_batch.cli.progress import watched
        from comir_batch.representation.store import find_model
        from comir_batch.retrieval.index import IndexRequest, build_index, names
        from comir_batch.retrieval.tables import read_slides

        config = _config(executor, workers, device, profile, settings)
        request = IndexRequest(slides, read_slides(slides), find_model(model), out, config, tuple(sys.argv), only=only)
        with watched() as (stop, subscriber):
            made = build_index(request, subscriber, stop)
        typer.echo(f"index: {out}\nslides: {names(made.slides)}")


def query(  # noqa: PLR0913  a parameter an option
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder that `index` made.")],
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="Image to look for, or a CSV of such, as for `index`.")
    ],
    *,
    modality: Annotated[str, typer.Option(help="Of the image; a CSV has a column for it.")] = "",
    top: Annotated[int, typer.Option(min=1, help="Slides to tell of, among the 30 best places.")] = 10,
    verified: Annotated[
        int, typer.Option(min=0, max=30, help="Places that are compared pixel by pixel; 0 ranks by coarse cells alone.")
    ] = 12,
    look_up: Annotated[
        Literal["auto", "all", "shortlist"],
        typer.Option(help="Compare all places, or a shortlist; auto: a shortlist in more than 2000 patches."),
    ] = "auto",
    mpp: Annotated[float | None, typer.Option(help="µm of a pixel of the image, if the file does not say.")] = None,
    channel: Annotated[str, typer.Option(help="Name or number of the one channel to use.")] = "",
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Page with both images side by side.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Table of all that is told.")] = None,
    device: options.Device = None,
) -> None:
    """Find the slides, and the places in them, that an image or each of a table of images comes from."""
    is_table = image.suffix.lower() == ".csv"
    if is_table == bool(modality):
        raise typer.BadParameter("give --modality with an image; a CSV has a column for it")
    if is_table and (mpp is not None or channel):
        raise typer.BadParameter("--mpp and --channel are of a single image; a CSV has columns for them")
    if mpp is not None and not 0 < mpp < math.inf:
        raise typer.BadParameter("--mpp is the size of a pixel in µm, above 0")
    with exit_codes():
        from comir_batch.core.slide import SlideSpec
        from comir_batch.pipeline.packages import require_computing
        from comir_batch.pipeline.representing import SlideRow
        from comir_batch.retrieval.answers import COLUMNS, QueryRequest, answer, write_answers
        from comir_batch.retrieval.tables import read_slides

        require_computing()
        require_files(csv, html)
        single = SlideRow(0, image.stem, SlideSpec(image.resolve(), 0, channel, mpp), modality.lower())
        rows = read_slides(image) if is_table else (single,)
        request = QueryRequest(index, rows, top, verified, device or "auto", look_up)
        answers = answer(request, lambda text: typer.echo(text, err=True))
        print_table("matches", COLUMNS, write_answers(answers, csv, html, tuple(sys.argv)))


def pair(  # noqa: PLR0913  a parameter an option
    fixed: Annotated[Path, typer.Argument(help="CSV with slide_id, path and modality of each fixed slide.")],
    moving: Annotated[Path, typer.Argument(help="The same of the moving slides.")],
    *,
    model: _Model,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The manifest to write.")],
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Takes what is computed; the same one goes on with it.")
    ] = None,
    executor: options.Executor = None,
    workers: options.Workers = None,
    device: options.Device = None,
    profile: options.Profile = None,
    settings: options.Settings = None,
) -> None:
    """Propose the manifest of two unsorted tables: which belong together, how sure that is, and where to start."""
    with exit_codes():
        from comir_batch.cli.progress import watched
        from comir_batch.pipeline.packages import require_computing
        from comir_batch.representation.store import find_model
        from comir_batch.retrieval.pairing import PairRequest, compare, proposed
        from comir_batch.retrieval.proposals import REPORT, report_row, write_proposals
        from comir_batch.retrieval.tables import read_slides

        require_computing()
        require_files(out)
        config, known = _config(executor, workers, device, profile, settings), find_model(model)
        folder = work or out.with_suffix(".work")
        tables = read_slides(fixed), read_slides(moving)
        request = PairRequest(*tables, (fixed, moving), known, out, folder, config, tuple(sys.argv))
        with watched() as (stop, subscriber):
            proposals = proposed(compare(request, subscriber, stop, lambda text: typer.echo(text, err=True)))
        manifest, report = write_proposals(out, proposals, known)
        print_table("pairs", REPORT, [report_row(each) for each in proposals])
        typer.echo(f"manifest: {manifest}\nreport:   {report}")


def _config(
    executor: str | None, workers: int | None, device: str | None, profile: str | None, settings: list[str] | None
) -> RunConfig:
    from comir_batch.core.config_file import load_config

    given = {
        "execution.executor": executor,
        "execution.workers": workers,
        "execution.device": device,
        "execution.profile": profile,
    }
    config = load_config(None, overrides(given, settings))
    require_cluster(profile, config)
    return config
