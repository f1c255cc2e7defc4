"""The registration benchmark's page: errors as curves, what was found, and the verdicts, condition by condition."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch import __version__
from comir_batch.bench.methods import METHODS
from comir_batch.bench.registration_table import VERDICT_COLUMNS, verdict_cells
from comir_batch.report.article import Article, Section, Table, article_page
from comir_batch.report.charts import Series, lines
from comir_batch.report.data import Link, Provenance
from comir_batch.training.known_rigid import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from comir_batch.bench.verdicts import Tallies
    from comir_batch.report.charts import Chart

    Row = Mapping[str, Any]

_REACH = 0.06  # the curves' largest error, as a share of the side
_STEPS = 240
_SHARES = (0.0, 106.0)  # leaves room for the mark's name
_COLUMNS = (
    "method",
    "fields",
    "found (%)",
    "95 % interval",
    "error where found (px)",
    "median (px)",
    "90th percentile (px)",
    "CPU s",
)
_HOW_TO_READ = (
    "A curve says which share of the fields has an error of at most so many pixels; it ends below 100 % where fields "
    "have a larger one or no transform. What lies left of the mark counts as found. The median and the 90th percentile "
    "are those of all fields; a dash says that that one has no transform."
)
_VERDICTS = (
    "Accept, review and reject as a run would say under the present thresholds. A false accept is a field that was "
    "accepted although its transform was not found, or although its crops do not belong together; a false reject is "
    "one that was rejected although its transform was found. In parentheses: the upper end of the one-sided 95 % "
    "confidence interval of their share (Clopper and Pearson), of all fields or of the found ones. Fields of one slide "
    "overlap, so that all intervals are somewhat too narrow."
)


def benchmark_page(
    groups: Sequence[Row], rows: Sequence[Row], tallies: Sequence[Tallies], intro: str, command: Sequence[str]
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    groups : sequence of dict
        As `registration_table.summarise` returns them.
    rows : sequence of dict
        The fields that they sum up.
    tallies : sequence of Tallies
        As `verdicts.tallied` returns them.
    intro : str
        What was measured, in words.
    command : sequence of str
        The command line.
    """
    known = [group for group in groups if any("found" in cell for cell in group["methods"].values())]
    sections = [Section("What was measured", (intro, _HOW_TO_READ, _names(groups)))]
    sections += [_section(group, [row for row in rows if row["condition"] == group["condition"]]) for group in known]
    sections += [_verdicts(groups, tallies)] if tallies else []
    names = ("table.md", "table.json", "fields.jsonl", "verdicts.csv")
    article = Article(
        "Registration of known transforms",
        "found, how near, how often a wrong one is accepted, and at what cost",
        tuple(sections),
        tuple(Link(name, name) for name in names),
        Provenance(__version__, shlex.join(command)),
    )
    return article_page(article)


def _names(groups: Sequence[Row]) -> str:
    measured = [name for name in METHODS if any(name in group["methods"] for group in groups)]
    return f"Methods: {'; '.join(f'{name}, {METHODS[name]}' for name in measured)}."


def _section(group: Row, rows: Sequence[Row]) -> Section:
    words = []
    if group["unbent_px"]:
        folded = [f"{name} {cell['folded']:.2%}" for name, cell in group["methods"].items() if "folded" in cell]
        words.append(f"The true turn and shift alone leave {group['unbent_px']:.2f} px (median).")
        words.append(f"Folded, mean share of a field: {', '.join(folded) or 'not recorded'}.")
    table = Table("What was found", _COLUMNS, tuple(_line(name, cell) for name, cell in group["methods"].items()))
    title = group["title"]
    return Section(title[0].upper() + title[1:], tuple(words), (table,), (_curves(group, rows),))


def _line(name: str, cell: Row) -> tuple[str | float | None, ...]:
    rounded = (None if cell[key] is None else round(cell[key], 2) for key in ("error_px", "median_px", "p90_px"))
    interval = f"{100 * cell['low']:.0f}-{100 * cell['high']:.0f}"
    return METHODS[name], cell["n"], round(100 * cell["found"], 1), interval, *rounded, round(cell["seconds"], 1)


def _curves(group: Row, rows: Sequence[Row]) -> Chart:
    """Draw the cumulative distribution of each method's errors."""
    side = group["side"]
    errors = np.linspace(0, _REACH * side, _STEPS + 1)
    series = [Series(name, errors, _shares(_errors(rows, name), errors)) for name in group["methods"]]
    title = f"Errors, {group['condition']}"
    mark = FOUND * side, f"{FOUND:.0%} of the side"
    return lines(title, series, "error (px)", "share of fields (%)", y_range=_SHARES, mark=mark)


def _errors(rows: Iterable[Row], method: str) -> list[float]:
    found = [row["methods"][method][0] for row in rows if method in row.get("methods", {})]
    return [float("inf") if error is None else error for error in found]


def _shares(errors: Sequence[float], limits: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, Any]:
    return 100 * np.searchsorted(np.sort(errors), limits, side="right") / len(errors)


def _verdicts(groups: Sequence[Row], tallies: Sequence[Tallies]) -> Section:
    columns = VERDICT_COLUMNS[0], *VERDICT_COLUMNS[2:]
    tables = [
        Table(METHODS[method], columns, tuple((title, *rest) for title, _, *rest in verdict_cells(tallies, method)[1]))
        for method in dict.fromkeys(method for _, methods in tallies for method in methods)
    ]
    unplaced = [f"{group['title']}: {group['unplaced']}" for group in groups if group["unplaced"]]
    words = [f"Fields for which the slides had no place: {'; '.join(unplaced)}."] if unplaced else []
    return Section("Verdicts", (_VERDICTS, *words), tuple(tables))
