"""`diagnose`: whether a model can be relied on, and why."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from comir_batch.cli import options  # noqa: TC001  typer resolves the annotations
from comir_batch.cli.failures import exit_codes
from comir_batch.cli.tables import print_table

if TYPE_CHECKING:
    from comir_batch.training.diagnosis import Diagnosis
    from comir_batch.training.pairs import TrainingPair
    from comir_batch.training.split import Part

_Against: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="The same model trained with another seed, for stability; repeatable."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("diagnose")(diagnose)


def diagnose(  # noqa: PLR0913  a parameter an option
    model: options.ModelName,
    pairs: options.AlignedPairs,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the report.")] = Path("diagnosis"),
    region: options.LearntRegion = None,
    whole: options.WholeSlides = False,
    against: _Against = None,
    crops: Annotated[int, typer.Option(min=16, help="Crops of each modality.")] = 192,
    seed: Annotated[int, typer.Option(min=0, help="Of the places that are measured.")] = 0,
    device: options.Device = None,
    keep_data: options.KeepData = False,
) -> None:
    """Measure a model on aligned pairs: known transforms, turned images, wrong pairs, collapse, stability."""
    if whole and region is not None:
        raise typer.BadParameter("give --region or --whole, not both")
    with exit_codes():
        from comir_batch.pipeline.packages import require_computing

        require_computing()
        from comir_batch.representation.device import resolve_device
        from comir_batch.representation.store import find_model
        from comir_batch.training.diagnose import diagnose as measure
        from comir_batch.training.diagnose import require_comparable
        from comir_batch.training.folder import held
        from comir_batch.training.unseen import require_unseen, unseen_parts, whole_parts

        chosen, others = find_model(model), [find_model(name) for name in against or ()]
        require_comparable(chosen, others)
        where = resolve_device(device or "auto")
        if region is not None:
            require_unseen(region)
        with held(out, "diagnosis", partial(typer.echo, err=True)):
            slides = _prepared(pairs, out, chosen.card.mpp)
            parts, which = whole_parts(chosen.card, slides) if whole else unseen_parts(chosen.card, slides, region)
            alignment = _alignment(parts)
            found = measure(chosen, parts, others, crops=crops, seed=seed, device=where)
            _write(found, which, alignment, out)
            if not keep_data:
                shutil.rmtree(out / "data", ignore_errors=True)
    _print(found, which, out)


def _prepared(manifest: Path, out: Path, mpp: float) -> tuple[TrainingPair, ...]:
    """Rewrite the slides at the model's pixel size as Zarr."""
    from comir_batch.cli.progress import show_progress
    from comir_batch.core.config import ExecutionConfig
    from comir_batch.training.pairs import prepare

    with show_progress() as subscriber:
        execution = ExecutionConfig(executor="serial", device="cpu")
        return prepare(manifest, out / "data", mpp, execution, subscriber, purpose="measure").pairs


def _alignment(parts: tuple[Part, ...]) -> tuple[str, ...]:
    """Say how well what is measured on is aligned; it is not refused, for to measure just that may be wanted."""
    from comir_batch.training.alignment import alignments, in_words, is_off

    found = alignments(tuple(dict.fromkeys(part.pair for part in parts)), parts)
    off = [name for name, each in found.items() if is_off(each)]
    sentences = in_words(found.values())
    if off:
        warning = "CAREFUL: the figures say little of the model where pairs are not aligned. Register them first: "
        sentences = (*sentences, warning + ", ".join(off))
    for sentence in sentences:
        typer.echo(sentence, err=True)
    return sentences


def _write(found: Diagnosis, which: str, alignment: tuple[str, ...], out: Path) -> None:
    from comir_batch import __version__
    from comir_batch.pipeline.files import write_json, write_text
    from comir_batch.report.article import Article, Section, article_page
    from comir_batch.report.data import Link, Provenance
    from comir_batch.training.diagnosis_sections import sections

    write_json(out / "diagnosis.json", found.to_json() | {"measured_on": which, "alignment": list(alignment)})
    article = Article(
        f"Diagnosis of {found.model}",
        f"{which} Pairs: {len(found.pairs)}, at {found.mpp:g} µm/px.",
        (*sections(found), Section("Are the pairs aligned?", alignment)),
        (Link("diagnosis.json", "diagnosis.json", "all figures"),),
        Provenance(version=__version__, command=" ".join(sys.argv), seeds={"places": found.seed}),
    )
    write_text(out / "diagnosis.html", article_page(article))


def _print(found: Diagnosis, which: str, out: Path) -> None:
    rows = [("known transforms found", f"{found.success.mean:.3f}")]
    for turning in found.turning:
        rows += [
            (f"lowest correlation over angle, {turning.modality}", f"{turning.lowest()[0]:.3f}"),
            (f"the same mirrored, {turning.modality}", f"{turning.lowest(mirrored=True)[0]:.3f}"),
        ]
    rows.append(("crops that find their partner", f"{found.partners.retrieved:.3f}"))
    for space in found.spaces:
        rows += [
            (f"effective rank of the {space.name}, {name}", f"{spectrum.effective_rank:.1f} of {spectrum.dimensions}")
            for name, spectrum in space.spectra.items()
        ]
    print_table(f"model {found.model}", ("figure", "value"), rows)
    typer.echo("\n".join(("", which, *found.findings, "", f"report: {out / 'diagnosis.html'}")))
