"""What a person decides on single pairs, and how it is told; only the run directory is needed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from comir_batch.core.errors import RunDirectoryError
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.by_hand import (
    ByHand,
    decided,
    flat,
    read_by_hand,
    standing,
    write_by_hand,
)
from comir_batch.pipeline.files import read_json, write_text
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.results import with_decision as row_with_decision
from comir_batch.pipeline.run_lock import RunLock
from comir_batch.report.decision import DecisionText
from comir_batch.report.decision import with_decision as page_with_decision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from comir_batch.pipeline.by_hand import Decision


def review(run: Path, pair: str, verdict: Verdict, note: str, say: Callable[[str], None]) -> Decision:
    """Note a decision in by_hand.json, in results.csv and on the pages that are there.

    Parameters
    ----------
    run : Path
        Run directory.
    pair : str
        A pair_id of it.
    verdict : Verdict
        Accept or reject.
    note : str
        Why.
    say : callable
        Told in a sentence if the run's lock has to be waited for.

    Raises
    ------
    RunDirectoryError
        If it is no run, it is being worked on, or the pair has no transform to decide on.
    """
    layout = Layout(run.resolve())
    require_pairs(layout, [pair])
    files = layout.pair(pair)
    if not files.transform_json.is_file() or not files.verdict.is_file():
        raise RunDirectoryError(f"{run} has no result of the pair {pair}. Run it first: comir-batch run")
    if read_json(files.verdict)["verdict"] == Verdict.ERROR:
        raise RunDirectoryError(f"the pair {pair} ended in an error: there is nothing to decide on. See {files.report}")
    with closing(RunLock(layout.lock, say)):
        by_hand = read_by_hand(layout)
        decision = decided(verdict, note, files.transform_json)
        given = by_hand.get(pair, ByHand())
        write_by_hand(layout, by_hand | {pair: replace(given, decision=decision)})
        _show(layout, pair, decision)
    return decision


def require_pairs(layout: Layout, pairs: Sequence[str]) -> None:
    """Raise RunDirectoryError unless this is a run directory and these are pairs of it."""
    if not layout.run_json.is_file():
        raise RunDirectoryError(f"{layout.root} is not a run directory: it has no run.json. Start with comir-batch run")
    known = [pair["pair_id"] for pair in read_json(layout.run_json)["pairs"]]
    unknown = sorted(set(pairs) - set(known))
    if unknown:
        some = ", ".join(known[:8]) + (" …" if len(known) > 8 else "")
        raise RunDirectoryError(f"{layout.root} has no pair {', '.join(unknown)}. It has {some}")


def decision_text(layout: Layout, pair: str) -> DecisionText | None:
    """Return the decision on a pair, if it stands, as pages show it."""
    decision = standing(read_by_hand(layout), pair, layout.pair(pair).transform_json)
    return DecisionText(decision.verdict, decision.sentence) if decision else None


def _show(layout: Layout, pair: str, decision: Decision) -> None:
    text = DecisionText(decision.verdict, decision.sentence)
    for page in (layout.report, layout.pair(pair).report):
        if page.is_file():
            write_text(page, page_with_decision(page.read_text(encoding="utf-8"), pair, text))
    if layout.results_csv.is_file():
        with layout.results_csv.open(newline="", encoding="utf-8") as stream:
            table = stream.read()
        write_text(layout.results_csv, row_with_decision(table, pair, decision))


def settings_by_hand(layout: Layout, pair: str) -> tuple[str, ...]:
    """Return a sentence for each setting that was made for this pair alone."""
    given = read_by_hand(layout).get(pair, ByHand())
    return tuple(f"For this pair alone, {key} is {value}" for key, value in flat(given.settings).items())
