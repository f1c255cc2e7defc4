"""The registration benchmark's tables: shares of known transforms that were found, errors, times and verdicts."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.bench.intervals import clopper_pearson
from comir_batch.bench.methods import METHODS
from comir_batch.bench.verdicts import is_found
from comir_batch.report.markdown import table as table_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from comir_batch.bench.conditions import Condition
    from comir_batch.bench.verdicts import Tallies, Tally

    Group = Mapping[str, Any]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""Heads of the columns, and rows of text."""

VERDICT_COLUMNS = (
    "condition",
    "method",
    "fields",
    "accept",
    "review",
    "reject",
    "no transform",
    "false accepts (at most)",
    "found",
    "of these accepted",
    "false rejects (at most)",
)


def summarise(rows: Iterable[Mapping[str, Any]], conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Return a record for each condition that has rows, with one for each of its methods.

    Parameters
    ----------
    rows : iterable of dict
        As `field_worker.measure_batch` returns them.
    conditions : sequence of Condition
        In the table's order.

    Returns
    -------
    list of dict
        ``condition``, ``title``, ``side``, ``unplaced`` (fields for which the slides had no place), ``unbent_px``
        (median error of the truth without its deformation) and ``methods``: by name ``n`` and ``seconds`` (median CPU
        time of a field), and where there is a truth ``found`` (share), ``low`` and ``high`` (its interval),
        ``error_px`` (median over what was found, None where nothing was), ``median_px`` and ``p90_px`` (of all fields,
        None where that one has no transform) and, of our methods, ``folded`` (mean share of the field).
    """
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["condition"]].append(row)
    return [_group(condition, grouped[condition.name]) for condition in conditions if condition.name in grouped]


def _group(condition: Condition, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    placed = [row for row in rows if "methods" in row]
    measured = {name: [row for row in placed if name in row["methods"]] for name in METHODS}
    return {
        "condition": condition.name,
        "title": condition.title,
        "side": condition.side,
        "unplaced": len(rows) - len(placed),
        "unbent_px": float(np.median([row["unbent_px"] for row in placed])) if placed else 0.0,
        "methods": {name: _cell(name, rows, condition) for name, rows in measured.items() if rows},
    }


def _cell(name: str, rows: Sequence[Mapping[str, Any]], condition: Condition) -> dict[str, Any]:
    errors, seconds = zip(*(row["methods"][name] for row in rows), strict=True)
    cell = {"n": len(rows), "seconds": float(np.median(seconds))}
    return cell if condition.kind == "wrong" else cell | _success(errors, condition.side) | _folded(name, rows)


def _folded(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    records = [row["evidence"][name] for row in rows if row.get("evidence", {}).get(name)]
    return {"folded": float(np.mean([record["folding"]["share"] for record in records]))} if records else {}


def _success(errors: Sequence[float | None], side: int) -> dict[str, Any]:
    hits = [error for error in errors if error is not None and is_found(error, side)]
    low, high = clopper_pearson(len(hits), len(errors))
    median, p90 = np.quantile([math.inf if e is None else e for e in errors], [0.5, 0.9], method="inverted_cdf")
    return {
        "found": len(hits) / len(errors),
        "low": low,
        "high": high,
        "error_px": float(np.median(hits)) if hits else None,
        "median_px": float(median) if math.isfinite(median) else None,
        "p90_px": float(p90) if math.isfinite(p90) else None,
    }


def cells(groups: Sequence[Group]) -> Table:
    """Return the table of what was found as text: a few rows for each condition with a truth, a column a method."""
    shown = [group for group in groups if any("found" in cell for cell in group["methods"].values())]
    names = [name for name in METHODS if any(name in group["methods"] for group in shown)]
    rows: list[tuple[str, ...]] = []
    for group in shown:
        count = max(cell["n"] for cell in group["methods"].values())
        title = f"{group['title']} (n = {count})"
        if group["unbent_px"]:
            title += f"; the true turn and shift alone leave {group['unbent_px']:.2f} px"
        labelled: list[tuple[str, Callable[[Group], str]]] = [
            ("found, % (95 % CI)", partial(share, count)),
            ("error where found, px", _error),
            ("error: median, 90th percentile, px", _spread),
            *([("folded, %", _percent_folded)] if group["unbent_px"] else []),
            ("CPU s", _seconds),
        ]
        for label, show in labelled:
            line = [show(group["methods"][name]) if name in group["methods"] else "-" for name in names]
            rows.append((title, label, *line))
            title = ""
    return ("condition", "", *(METHODS[name] for name in names)), rows


def share(count: int, cell: Group) -> str:
    """Return a method's share found with its interval as text, and its fields where these are not as many as named."""
    fewer = "" if cell["n"] == count else f", n = {cell['n']}"
    return f"{100 * cell['found']:.0f} ({100 * cell['low']:.0f}-{100 * cell['high']:.0f}{fewer})"


def _error(cell: Group) -> str:
    return pixels(cell["error_px"])


def _spread(cell: Group) -> str:
    return f"{pixels(cell['median_px'])}, {pixels(cell['p90_px'])}"


def _percent_folded(cell: Group) -> str:
    return f"{100 * cell['folded']:.2f}" if "folded" in cell else "-"


def pixels(value: float | None) -> str:
    """Return an error as text."""
    return "-" if value is None else f"{value:.2f}"


def _seconds(cell: Group) -> str:
    return f"{cell['seconds']:.1f}"


def verdict_cells(tallies: Sequence[Tallies], *wanted: str) -> Table:
    """Return the table of verdicts as text: a row for each condition and method of ours, all of them or some."""
    rows = [
        (title, METHODS[method], *_verdicts(tally))
        for title, methods in tallies
        for method, tally in methods.items()
        if method in (wanted or methods)
    ]
    return VERDICT_COLUMNS, rows


def _verdicts(tally: Tally) -> tuple[str, ...]:
    numbers = tally.to_json()
    counts = (tally.fields, tally.accepted, tally.reviewed, tally.rejected, tally.without)
    wrong = f"{tally.false_accepts} ({numbers['false_accepts_most']:.1%})"
    if not tally.found:
        return (*map(str, counts), wrong, "0", "-", "-")
    missed = f"{tally.rejected_found} ({numbers['false_rejects_most']:.1%})"
    return (*map(str, counts), wrong, str(tally.found), f"{tally.accepted_found / tally.found:.0%}", missed)


def markdown(groups: Sequence[Group], tallies: Sequence[Tallies], intro: str) -> str:
    """Return both tables as a piece of a Markdown page, under an introduction."""
    tables = [table_text(*table) for table in (cells(groups), verdict_cells(tallies)) if table[1]]
    unplaced = [f"{group['title']}: {group['unplaced']}" for group in groups if group["unplaced"]]
    left_out = [f"Fields for which the slides had no place: {'; '.join(unplaced)}."] if unplaced else []
    return "\n\n".join([intro, *tables, *left_out]) + "\n"
