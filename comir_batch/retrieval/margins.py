"""What a score says beside those of other places: the margin, and how likely a place of such a margin is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SURE = 1.3
"""Times as high as the next place's a score must be for a pair to be sure: half way between right and wrong ones."""
_STEEP = 12.7  # measured, with SURE: docs/retrieval.md, "Two folders"
_FEW = 5  # other places below which they do not tell how high chance comes
_NOT = 1e-6  # instead of a score of nothing


def are_telling(others: Sequence[float]) -> bool:
    """Return whether the scores of other places tell how high chance comes: there are some, and the best is above 0."""
    return len(others) >= _FEW and max(others) > 0


def times_as_high(score: float, others: Sequence[float]) -> float:
    """Return the margin: how many times as high a score is as the best of others; 1 where there is no other.

    No more than `SURE` where the others tell little.
    """
    if not others:
        return 1.0
    margin = max(score, _NOT) / max(*others, _NOT)
    return margin if are_telling(others) else min(margin, SURE)


def confidence_at(margin: float) -> float:
    """Return how likely a pair of such a margin is right, one half at a margin of `SURE`."""
    return float(1 / (1 + (SURE / max(margin, _NOT)) ** _STEEP))
