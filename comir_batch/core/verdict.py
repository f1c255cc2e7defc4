"""Verdicts: whether to trust a pair."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Verdict(StrEnum):
    """What became of a pair; `error` means that it crashed, not that it was judged."""

    ACCEPT = "accept"
    REVIEW = "review"
    REJECT = "reject"
    ERROR = "error"


class Judgement(NamedTuple):
    """A verdict with its reasons (sentences for a user) and the numbers behind them."""

    verdict: Verdict
    reasons: tuple[str, ...]
    metrics: dict[str, float | str | None]
