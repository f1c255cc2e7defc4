"""One thing that `doctor` looked at."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Check(NamedTuple):
    """What was found.

    Attributes
    ----------
    name : str
        What was looked at.
    state : {"ok", "warning", "failed"}
        With ``failed`` a run would fail; ``warning`` is for what may be as it should.
    found : str
        What is there; where that is not good, what to do.
    """

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str


def ok(name: str, found: str) -> Check:
    """Return a check that found all well."""
    return Check(name, "ok", found)


def warning(name: str, found: str) -> Check:
    """Return a check that found something to look at."""
    return Check(name, "warning", found)


def failed(name: str, found: str) -> Check:
    """Return a check that found what must be mended."""
    return Check(name, "failed", found)
