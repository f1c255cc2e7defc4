"""Thresholds of the verdict, chosen on the fields of some slides, and what they do on those of others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from comir_batch.bench.conditions import conditions
from comir_batch.bench.field_worker import digest_of
from comir_batch.bench.intervals import at_most
from comir_batch.bench.rows import read_rows
from comir_batch.bench.verdicts import is_found, restored
from comir_batch.core.errors import ConfigError
from comir_batch.core.verdict import Verdict
from comir_batch.quality.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from comir_batch.core.config import JudgeConfig
    from comir_batch.quality.evidence import Evidence

MOST_FALSE_ACCEPTS, MOST_FALSE_REJECTS = 0.01, 0.05
SWEPT: Mapping[str, tuple[float, ...]] = {
    "accept_z": tuple(np.arange(2.0, 40.5, 0.5).tolist()),
    "review_z": tuple(np.arange(1.0, 12.25, 0.25).tolist()),
    "max_tile_error_px": tuple(np.arange(0.5, 12.25, 0.25).tolist()),
    "min_margin_nats": tuple(np.arange(0.0, 40.5, 0.5).tolist()),
    "max_inverse_error_px": tuple(np.arange(0.1, 5.05, 0.1).tolist()),
}
"""Thresholds of `JudgeConfig` that are looked at, and their values, ascending."""


class Case(NamedTuple):
    """A field: what its verdict rests on, None without a transform, and whether the true transform was found."""

    evidence: Evidence | None
    found: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Verdicts on fields whose true transform was found (right), and on all others (wrong)."""

    right: int
    right_accepted: int
    right_rejected: int
    wrong: int
    wrong_accepted: int
    wrong_rejected: int

    @classmethod
    def of(cls, cases: Iterable[Case], config: JudgeConfig) -> Counts:
        """Judge by thresholds, and count; what has no transform is rejected."""
        judged = [(judge(e, config).verdict if e else Verdict.REJECT, found) for e, found in cases]
        right, wrong = ([verdict for verdict, found in judged if found is which] for which in (True, False))
        counts = [(len(v), v.count(Verdict.ACCEPT), v.count(Verdict.REJECT)) for v in (right, wrong)]
        return cls(*counts[0], *counts[1])

    @property
    def false_accepts_most(self) -> float:
        """Upper end of the one-sided 95 % interval of the share of the wrong ones that are accepted."""
        return at_most(self.wrong_accepted, self.wrong)

    @property
    def false_rejects_most(self) -> float:
        """The same of the right ones that are rejected."""
        return at_most(self.right_rejected, self.right)

    def to_json(self) -> dict[str, float]:
        """Return counts and bounds."""
        bounds = {"false_accepts_most": self.false_accepts_most, "false_rejects_most": self.false_rejects_most}
        return {**asdict(self), **bounds}


class Fields(NamedTuple):
    """Measured fields: the digests of their slides, and a case each."""

    slides: frozenset[str]
    cases: tuple[Case, ...]


def read_fields(folders: Sequence[Path], method: str) -> Fields:
    """Return what one of our methods left on the fields in outputs of the registration benchmark, once for each field.

    Raises
    ------
    ConfigError
        If a folder holds no fields, or none with evidence of this method.
    """
    slides: set[str] = set()
    cases: dict[tuple[str, str, int], Case] = {}  # a folder may be named twice, or be a copy of another
    for folder in folders:
        about, rows = read_rows(folder)
        setup = digest_of(about)
        known = {
            (setup, row["condition"], row["number"]): case for row in rows for case in _case(row, method, about["side"])
        }
        if not known:
            raise ConfigError(f"{folder} holds no evidence of the method {method}; measure it there, or name another")
        cases |= known
        slides |= {digest for part in about["parts"] for digest in part[1:3]}
    return Fields(frozenset(slides), tuple(cases.values()))


def _case(row: Mapping[str, Any], method: str, side: int) -> list[Case]:
    if method not in row.get("evidence", {}):
        return []
    sides = {condition.name: condition.side for condition in conditions(side)}
    record, error = row["evidence"][method], row["methods"][method][0]
    return [Case(restored(record) if record else None, is_found(error, sides[row["condition"]]))]


def calibrated(cases: Sequence[Case], config: JudgeConfig) -> JudgeConfig:
    """Return thresholds with the significance that verdicts ask for chosen, and all others as they are.

    `accept_z` is the least at which at most 1 % of the wrong fields are accepted, and `review_z` the greatest at
    which at most 5 % of the right ones are rejected; both by the upper end of the one-sided interval. `review_z` is at
    most half of `accept_z`, so that what lies between is left to a person.

    Raises
    ------
    ConfigError
        If there are too few fields to show that, or no threshold does.
    """
    present = Counts.of(cases, config)
    _require(present.wrong, MOST_FALSE_ACCEPTS, "wrong")
    _require(present.right, MOST_FALSE_REJECTS, "right")
    config = _with_first(
        cases, config, "accept_z", SWEPT["accept_z"], lambda counts: counts.false_accepts_most <= MOST_FALSE_ACCEPTS
    )
    falling = [value for value in reversed(SWEPT["review_z"]) if value <= config.accept_z / 2]
    return _with_first(
        cases, config, "review_z", falling, lambda counts: counts.false_rejects_most <= MOST_FALSE_REJECTS
    )


def _require(count: int, most: float, kind: str) -> None:
    if at_most(0, count) > most:
        needed = next(number for number in range(count, 10_000) if at_most(0, number) <= most)
        raise ConfigError(
            f"there are {count} {kind} fields; to show that at most {most:.0%} of them are judged wrongly takes "
            f"{needed} or more. Measure more with comir-batch bench registration"
        )


def _with_first(
    cases: Sequence[Case],
    config: JudgeConfig,
    name: str,
    values: Sequence[float],
    suffices: Callable[[Counts], bool],
) -> JudgeConfig:
    for value in values:
        changed = config.model_copy(update={name: value})
        if suffices(Counts.of(cases, changed)):
            return changed
    raise ConfigError(
        f"no judge.{name} from {min(values):g} to {max(values):g} keeps wrong verdicts as few as asked; look at the "
        "fields in verdicts.csv, and set other thresholds first"
    )


def swept(cases: Sequence[Case], config: JudgeConfig, name: str) -> list[Counts]:
    """Return the counts at each of a threshold's values in `SWEPT`, with all other thresholds as they are."""
    return [Counts.of(cases, config.model_copy(update={name: value})) for value in SWEPT[name]]
