"""The registration benchmark's table: shares of known transforms that were found, with confidence intervals."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from comir_batch.bench.methods import METHODS
from comir_batch.training.known_rigid import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from comir_batch.bench.fields import Condition

_CONFIDENCE = 0.95


def clopper_pearson(hits: int, count: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Return the exact confidence interval of a share (Clopper and Pearson, Biometrika 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(stats.beta.ppf(1 - tail, hits + 1, count - hits))
    return low, high


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
        (median error of the truth without its deformation) and ``methods``: by name ``n``, ``found`` (share), ``low``
        and ``high`` (its interval), ``error_px`` (median over what was found, None where nothing was) and ``seconds``
        (median CPU time of a field).
    """
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["condition"]].append(row)
    return [_group(condition, grouped[condition.name]) for condition in conditions if condition.name in grouped]


def _group(condition: Condition, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    placed = [row for row in rows if "methods" in row]
    measured = {name: [row["methods"][name] for row in placed if name in row["methods"]] for name in METHODS}
    return {
        "condition": condition.name,
        "title": condition.title,
        "side": condition.side,
        "unplaced": len(rows) - len(placed),
        "unbent_px": float(np.median([row["unbent_px"] for row in placed])) if placed else 0.0,
        "methods": {name: _cell(values, condition) for name, values in measured.items() if values},
    }


def _cell(values: Sequence[tuple[float | None, float]], condition: Condition) -> dict[str, Any]:
    hits = [error for error, _ in values if error is not None and error <= FOUND * condition.side]
    low, high = clopper_pearson(len(hits), len(values))
    return {
        "n": len(values),
        "found": len(hits) / len(values),
        "low": low,
        "high": high,
        "error_px": float(np.median(hits)) if hits else None,
        "seconds": float(np.median([seconds for _, seconds in values])),
    }


def cells(groups: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the columns and rows of the table as text: three rows for each condition."""
    rows: list[tuple[str, ...]] = []
    for group in groups:
        count = max((cell["n"] for cell in group["methods"].values()), default=0)
        title = f"{group['title']} (n = {count})"
        if group["unbent_px"]:
            title += f"; the true turn and shift alone leave {group['unbent_px']:.2f} px"
        share = partial(_share, count)
        for label, show in (("found, % (95 % CI)", share), ("error where found, px", _error), ("CPU s", _seconds)):
            shown = [show(group["methods"][name]) if name in group["methods"] else "-" for name in METHODS]
            rows.append((title, label, *shown))
            title = ""
    return ("condition", "", *METHODS.values()), rows


def _share(count: int, cell: Mapping[str, Any]) -> str:
    fewer = "" if cell["n"] == count else f", n = {cell['n']}"
    return f"{100 * cell['found']:.0f} ({100 * cell['low']:.0f}-{100 * cell['high']:.0f}{fewer})"


def _error(cell: Mapping[str, Any]) -> str:
    return "-" if cell["error_px"] is None else f"{cell['error_px']:.2f}"


def _seconds(cell: Mapping[str, Any]) -> str:
    return f"{cell['seconds']:.1f}"


def markdown(groups: Sequence[Mapping[str, Any]], intro: str) -> str:
    """Return the table as a piece of a Markdown page, under an introduction."""
    columns, rows = cells(groups)
    lines = [columns, ("---",) * len(columns), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    unplaced = [f"{group['title']}: {group['unplaced']}" for group in groups if group["unplaced"]]
    left_out = f"\n\nFields for which the slides had no place: {'; '.join(unplaced)}." if unplaced else ""
    return f"{intro}\n\n{table}{left_out}\n"
