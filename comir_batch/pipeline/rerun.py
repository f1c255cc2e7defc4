"""Settings that a person gives single pairs of a run, which hold from the next run on."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from comir_batch.core.task import Resource
from comir_batch.pipeline.by_hand import ByHand, config_of, read_by_hand, with_settings, write_by_hand
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.job import Inference
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.review import require_pairs
from comir_batch.pipeline.run_lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.pair import Pair


def set_by_hand(
    run: Path,
    pairs: Sequence[str],
    settings: Mapping[str, Any],
    config: RunConfig,
    say: Callable[[str], None],
    inspected: Sequence[Pair] = (),
) -> None:
    """Note settings for single pairs, which hold from the next run on; whoever calls runs.

    With settings with which a pair cannot be run nothing is noted, for they would stop the other pairs, too.

    Parameters
    ----------
    run, pairs
        Run directory and pairs of it.
    settings : mapping
        Nested; laid over what the pairs have been given before. Empty to forget that.
    config : RunConfig
        Of the run, to check the settings with.
    say : callable
        As for `review`.
    inspected : sequence of Pair
        All pairs of the run, whose jobs are built to see whether they can be run so.

    Raises
    ------
    ConfigError
        If a setting is wrong, a pair cannot be run with it, or not one of a single pair.
    RunDirectoryError
        If it is no run or being worked on, or has no such pair.
    """
    layout = Layout(run.resolve())
    require_pairs(layout, pairs)
    with closing(RunLock(layout.lock, say)):
        by_hand = read_by_hand(layout)
        for pair in pairs:
            given = by_hand.get(pair, ByHand())
            changed = with_settings(given, settings) if settings else replace(given, settings={})
            config_of(config, changed)
            by_hand[pair] = changed
        asked = [pair for pair in inspected if pair.name in pairs]
        build_jobs(asked, config, layout, Inference("cpu", Resource.CPU), by_hand)
        write_by_hand(layout, by_hand)
