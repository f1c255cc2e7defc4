"""Exact confidence intervals of shares (Clopper and Pearson, Biometrika 1934)."""

from __future__ import annotations

from scipy import stats

CONFIDENCE = 0.95


def clopper_pearson(hits: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the two-sided interval of a share; all of 0 to 1 where nothing was counted."""
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, count - hits + 1))
    high = 1.0 if hits == count else float(stats.beta.ppf(1 - tail, hits + 1, count - hits))
    return low, high


def told(hits: int, count: int) -> str:
    """Return the two-sided interval of a share as text."""
    low, high = clopper_pearson(hits, count)
    return f"{low:.3f}-{high:.3f}"


def at_most(hits: int, count: int) -> float:
    """Return the upper end of the one-sided interval of a share; 1 where nothing was counted."""
    return clopper_pearson(hits, count, 2 * CONFIDENCE - 1)[1]
