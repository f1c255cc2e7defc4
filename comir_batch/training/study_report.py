"""The report of a study: its table, and the spectra and maps of every variant."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from comir_batch import __version__
from comir_batch.pipeline.files import write_text
from comir_batch.report import markdown
from comir_batch.report.article import Article, Section, Table, article_page
from comir_batch.report.charts import Chart, Series, lines
from comir_batch.report.data import Link, Provenance
from comir_batch.training.diagnosis_sections import map_chart, spectrum_chart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comir_batch.training.diagnosis import Space
    from comir_batch.training.lesson import Lesson
    from comir_batch.training.study import StudyRequest, Trial

_COLUMNS = (
    "variant",
    "seed",
    "found (%)",
    "95 % interval",
    "by level (%)",
    "retrieved (%)",
    "lowest turned",
    "rank of outputs",
    "rank of bottleneck",
    "collapsed of bottleneck",
    "loss",
    "minutes",
)


def write_study(request: StudyRequest, lesson: Lesson, trials: Sequence[Trial]) -> None:
    """Write the table as Markdown, the report as HTML, and its charts as files of their own."""
    crops = "unseen crops" if lesson.is_measured_unseen else "crops, which decided when to stop"
    table = Table(f"Every model, on the same {crops}", _COLUMNS, tuple(_row(trial) for trial in trials))
    write_text(request.out / "table.md", markdown.table(table.columns, table.rows) + "\n")
    first = [trial for trial in trials if trial.seed == request.config.seed]
    sections = [
        Section("What was found", _findings(request, lesson, trials), (table,)),
        *(_space_section(name, first) for name in ("bottleneck", "output")),
        Section("Does the representation turn with the image?", charts=_turning(first)),
    ]
    article = Article(
        f"Study of {request.name}",
        " against ".join(lesson.data.modalities),
        tuple(sections),
        tuple(Link(name, name) for name in ("study.json", "table.md")),
        Provenance(__version__, shlex.join(request.command)),
    )
    write_text(request.out / "study.html", article_page(article))
    for chart in (chart for section in sections for chart in section.charts):
        name = f"{chart.title}.svg".lower().replace(", ", "-").replace(" ", "-")
        write_text(request.out / "charts" / name, str(chart.svg))


def _row(trial: Trial) -> tuple[str | float, ...]:
    low, high = trial.interval
    (bottleneck,) = (space for space in trial.diagnosis.spaces if space.name == "bottleneck")
    names = [turning.modality for turning in trial.diagnosis.turning]
    return (
        trial.variant,
        trial.seed,
        round(100 * trial.success, 1),
        f"{100 * low:.1f}-{100 * high:.1f}",
        " / ".join(f"{100 * found / tried:.0f}" for found, tried in zip(trial.found, trial.fields, strict=True)),
        round(100 * trial.diagnosis.partners.retrieved, 1),
        round(_lowest_turned(trial), 3),
        round(trial.rank("output"), 1),
        round(trial.rank("bottleneck"), 1),
        " / ".join(str(bottleneck.spectra[name].collapsed) for name in names),
        round(trial.loss, 3),
        round(trial.minutes, 1),
    )


def _findings(request: StudyRequest, lesson: Lesson, trials: Sequence[Trial]) -> tuple[str, ...]:
    seeds = {trial.seed for trial in trials}
    caveat = (
        f"One seed, {request.config.steps} steps: differences of a few percent are chance."
        if len(seeds) == 1
        else f"{len(seeds)} seeds, {request.config.steps} steps each."
    )
    base = trials[0].variant
    success = {name: _mean([t.success for t in trials if t.variant == name]) for name in _variants(trials)}
    ranks = {name: _mean([t.rank("bottleneck") for t in trials if t.variant == name]) for name in _variants(trials)}
    best = max(success, key=lambda name: success[name])
    others = [name for name in success if name != base]
    better = [name for name in others if success[name] > success[base]]
    lower = [name for name in others if ranks[name] < ranks[base]]
    where = "that no training read" if lesson.is_measured_unseen else "that chose the step to keep"
    measured = f"Measured by {request.fields} known rigid transforms of crops of {trials[0].side} pixels {where}."
    most = (
        f"Most was found by {best} ({success[best]:.1%}); {base} found {success[base]:.1%}; {len(better)} of "
        f"{len(others)} other variants found more than that."
    )
    fewest = min(ranks, key=lambda name: ranks[name])
    used = (
        f"The effective rank of the bottleneck is {ranks[base]:.1f} for {base}, and lower for {len(lower)} of "
        f"{len(others)} other variants (lowest: {fewest}, {ranks[fewest]:.1f})."
    )
    lowest = {name: _mean([_lowest_turned(t) for t in trials if t.variant == name]) for name in _variants(trials)}
    rest = [lowest[name] for name in others]
    turned = (
        "The lowest correlation over angle of a CoMIR with that of the turned image, turned back, is "
        f"{lowest[base]:.2f} for {base}; of the others it is {min(rest):.2f} to {max(rest):.2f}."
    )
    return caveat, measured, most, turned, used


def _lowest_turned(trial: Trial) -> float:
    return min(turning.lowest()[0] for turning in trial.diagnosis.turning)


def _variants(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.variant for trial in trials))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _space_section(name: str, trials: Sequence[Trial]) -> Section:
    spaces = {trial.variant: _space(trial, name) for trial in trials}
    modalities = [turning.modality for turning in trials[0].diagnosis.turning]
    spectra = [
        spectrum_chart(
            f"Singular values of the {name}, {modality}",
            {variant: space.spectra[modality] for variant, space in spaces.items()},
        )
        for modality in modalities
    ]
    maps = [map_chart(f"{name.capitalize()}, {variant}", space) for variant, space in spaces.items()]
    words = (
        "Singular values of the covariance of features, as shares of the largest: the sooner they fall, the fewer "
        "dimensions are used. On the maps, lines join crops of one place: short lines and a wide spread are good."
    )
    return Section(f"Space of the {name}", (words,), charts=(*spectra, *maps))


def _space(trial: Trial, name: str) -> Space:
    (found,) = (space for space in trial.diagnosis.spaces if space.name == name)
    return found


def _turning(trials: Sequence[Trial]) -> tuple[Chart, ...]:
    charts = []
    for index, first in enumerate(trials[0].diagnosis.turning):
        series = []
        for trial in trials:
            turning = trial.diagnosis.turning[index]
            series.append(Series(trial.variant, turning.angles, [spread.mean for spread in turning.turned]))
        charts.append(lines(f"Turned, {first.modality}", series, "angle (°)", "correlation", y_range=(-0.2, 1)))
    return tuple(charts)
