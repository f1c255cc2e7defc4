"""What a person decided on single pairs of a run, and set for them: `by_hand.json` in the run directory.

A decision is on a transform. When the pair is registered anew with another result it does not stand any more.
"""

from __future__ import annotations

import getpass
import hashlib
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comir_batch.core.config_file import anchored, load_config, merged
from comir_batch.core.errors import ConfigError
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.core.config import RunConfig
    from comir_batch.pipeline.layout import Layout

_SECTIONS = ("chunk", "represent", "register", "judge", "warp", "export")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided on a pair.

    Attributes
    ----------
    verdict : Verdict
        Accept or reject.
    note : str
        Why, in the person's words; may be empty.
    by, at : str
        The account, and the local time.
    transform : str
        SHA-256 of the transform.json that was looked at.
    """

    verdict: Verdict
    note: str
    by: str
    at: str
    transform: str

    @property
    def sentence(self) -> str:
        """Say who decided what, when and why."""
        why = f": {self.note}" if self.note else ""
        return f"{self.verdict.value} was decided by {self.by} on {self.at}{why}"


@dataclass(frozen=True, slots=True)
class ByHand:
    """What one pair has been given.

    Attributes
    ----------
    settings : dict
        Nested settings that hold for this pair, over those of the run.
    decision : Decision or None
        The last one, whether or not it stands.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    decision: Decision | None = None


def read_by_hand(layout: Layout) -> dict[str, ByHand]:
    """Return what there is, by pair."""
    if not layout.by_hand.is_file():
        return {}
    return {pair: _from_json(content) for pair, content in read_json(layout.by_hand).items()}


def write_by_hand(layout: Layout, by_hand: Mapping[str, ByHand]) -> None:
    """Write it; the driver's lock should be held."""
    write_json(layout.by_hand, {pair: asdict(given) for pair, given in sorted(by_hand.items())})


def decided(verdict: Verdict, note: str, transform: Path) -> Decision:
    """Return the decision of the account that asks, now, on a transform.json."""
    return Decision(
        verdict, " ".join(note.split()), getpass.getuser(), time.strftime("%Y-%m-%d %H:%M"), _digest(transform)
    )


def standing(by_hand: Mapping[str, ByHand], pair: str, transform: Path) -> Decision | None:
    """Return the decision on a pair; None if there is none, or its transform.json is another one than was looked at."""
    decision = by_hand.get(pair, ByHand()).decision
    if decision is None or not transform.is_file() or _digest(transform) != decision.transform:
        return None
    return decision


def with_settings(given: ByHand, settings: Mapping[str, Any]) -> ByHand:
    """Lay further nested settings over a pair's own; paths in them become absolute.

    Raises
    ------
    ConfigError
        If a setting is not one of a single pair.
    """
    for section in settings:
        if section not in _SECTIONS:
            raise ConfigError(f"{section} cannot be set for single pairs. Set something in {', '.join(_SECTIONS)}")
    return replace(given, settings=merged(given.settings, anchored(dict(settings), Path())))


def config_of(config: RunConfig, given: ByHand | None) -> RunConfig:
    """Return the settings that hold for a pair.

    Raises
    ------
    ConfigError
        If one of the pair's own is wrong.
    """
    if given is None or not given.settings:
        return config
    return load_config(None, merged(config.model_dump(mode="json", by_alias=True), given.settings))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        found |= inner
    return found


def _from_json(content: Mapping[str, Any]) -> ByHand:
    decision = content["decision"]
    if decision is not None:
        decision = Decision(**{**decision, "verdict": Verdict(decision["verdict"])})
    return ByHand(content["settings"], decision)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
