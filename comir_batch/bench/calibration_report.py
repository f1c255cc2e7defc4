"""Calibrates the thresholds of the verdict, and draws what they do: curves, counts, and the settings to use."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from comir_batch import __version__
from comir_batch.bench.calibration import SWEPT, Counts, calibrated, read_fields, swept
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import write_json, write_text
from comir_batch.report.article import Article, Section, Table, article_page
from comir_batch.report.charts import Series, lines
from comir_batch.report.data import Link, Provenance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from comir_batch.bench.calibration import Fields
    from comir_batch.core.config import JudgeConfig
    from comir_batch.report.charts import Chart

COLUMNS = (
    "thresholds",
    "fields of",
    "right",
    "of these accepted",
    "false rejects (at most)",
    "wrong",
    "false accepts (at most)",
)
_WORDS = (
    "Right fields are those whose true transform was found; wrong ones those where it was not, and those whose crops "
    "do not belong together. The significance that verdicts ask for was chosen on the fields of some slides: the least "
    "accept_z at which at most 1 % of the wrong ones are accepted, and the greatest review_z, up to half of it, at "
    "which at most 5 % of the right ones are rejected, both by the upper end of the one-sided 95 % interval (Clopper "
    "and Pearson). What they do is told of other slides. Fields of one slide overlap, so that the bounds are somewhat "
    "too narrow."
)
_NAMES = {
    "accept_z": "significance asked for to accept",
    "review_z": "significance asked for lest a pair be rejected",
    "max_tile_error_px": "largest estimated error (px)",
    "min_margin_nats": "margin of the start (nats)",
    "max_inverse_error_px": "largest inverse error (px)",
}


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What to calibrate on.

    Attributes
    ----------
    chosen_on, told_of : tuple of Path
        Outputs of the registration benchmark, of other slides each.
    method : str
        One of ours.
    config : JudgeConfig
        The thresholds that are not chosen, and those to compare with.
    out : Path
        Takes ``calibration.json`` and ``report.html``.
    command : tuple of str
        The command line, for the report.
    """

    chosen_on: tuple[Path, ...]
    told_of: tuple[Path, ...]
    method: str
    config: JudgeConfig
    out: Path
    command: tuple[str, ...] = ()


class Calibration(NamedTuple):
    """The chosen thresholds, and rows of text below `COLUMNS`."""

    config: JudgeConfig
    rows: list[tuple[str, ...]]


def calibrate(request: CalibrationRequest) -> Calibration:
    """Choose thresholds on some slides, tell what they do on others, and write both down.

    Raises
    ------
    ConfigError
        If a folder holds no fields, both sets share a slide, or there are too few fields.
    """
    sets = {"calibration": read_fields(request.chosen_on, request.method)}
    sets["other slides"] = read_fields(request.told_of, request.method)
    if sets["calibration"].slides & sets["other slides"].slides:
        raise ConfigError(
            "both sets of fields are of the same slide; tell the figures of slides that nothing was set by"
        )
    config = calibrated(sets["calibration"].cases, request.config)
    counts = [
        (name, title, Counts.of(fields.cases, thresholds))
        for name, thresholds in (("present", request.config), ("chosen", config))
        for title, fields in sets.items()
    ]
    rows = [(name, title, *_cells(each)) for name, title, each in counts]
    about = {"chosen": config.model_dump(mode="json"), "present": request.config.model_dump(mode="json")}
    told = [{"thresholds": name, "fields_of": title, **each.to_json()} for name, title, each in counts]
    write_json(request.out / "calibration.json", {**about, "method": request.method, "counts": told})
    write_text(request.out / "report.html", _page(request, config, sets, rows))
    return Calibration(config, rows)


def _cells(counts: Counts) -> tuple[str, ...]:
    share = f"{counts.right_accepted / counts.right:.0%}" if counts.right else "-"
    rejects = f"{counts.right_rejected} ({counts.false_rejects_most:.1%})"
    return (
        str(counts.right),
        share,
        rejects,
        str(counts.wrong),
        f"{counts.wrong_accepted} ({counts.false_accepts_most:.1%})",
    )


def _page(
    request: CalibrationRequest, config: JudgeConfig, sets: Mapping[str, Fields], rows: Sequence[tuple[str, ...]]
) -> str:
    settings = " ".join(f"--set judge.{name}={getattr(config, name):g}" for name in ("accept_z", "review_z"))
    table = Table("Verdicts", COLUMNS, tuple(rows))
    sections = [Section("What was chosen", (_WORDS, f"To use it: {settings}"), (table,))]
    sections += [
        Section(_NAMES[name][0].upper() + _NAMES[name][1:], (), (), (_curves(name, config, sets),)) for name in SWEPT
    ]
    article = Article(
        "Thresholds of the verdict",
        f"chosen on {len(sets['calibration'].cases)} fields, told of {len(sets['other slides'].cases)} of other slides",
        tuple(sections),
        (Link("calibration.json", "calibration.json"),),
        Provenance(__version__, shlex.join(request.command)),
    )
    return article_page(article)


def _curves(name: str, config: JudgeConfig, sets: Mapping[str, Fields]) -> Chart:
    """Draw the shares that a threshold decides over, all other thresholds as chosen."""
    verdict = "rejected" if name == "review_z" else "accepted"
    series = []
    for title, fields in sets.items():
        counts = swept(fields.cases, config, name)
        for kind in ("right", "wrong"):
            shares = [100 * getattr(c, f"{kind}_{verdict}") / max(getattr(c, kind), 1) for c in counts]
            series.append(Series(f"{kind} ones {verdict}, {title}", SWEPT[name], shares))
    mark = getattr(config, name), f"{getattr(config, name):g}"
    return lines(f"judge.{name}", series, _NAMES[name], "share (%)", y_range=(0.0, 106.0), mark=mark)
