"""The verdicts on benchmarked fields: how often a wrong transform is accepted, and a right one rejected.

The rows of the benchmark hold the evidence, not the verdict, so that other thresholds can be tried on what is there.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.bench.intervals import at_most
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.files import csv_text
from comir_batch.quality.evidence import Evidence
from comir_batch.quality.plausibility import Folding, Shape
from comir_batch.quality.points import InverseError, TileError
from comir_batch.quality.similarity import Similarity
from comir_batch.quality.verdict import judge
from comir_batch.training.known_rigid import FOUND

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from comir_batch.bench.conditions import Condition
    from comir_batch.core.config import JudgeConfig
    from comir_batch.core.verdict import Judgement

    Row = Mapping[str, Any]


def recorded(evidence: Evidence | None) -> dict[str, Any] | None:
    """Return evidence in JSON's own types."""
    return asdict(evidence) if evidence else None


def restored(record: Mapping[str, Any]) -> Evidence:
    """Return the evidence that `recorded` wrote down, without landmarks."""
    views = {name: record[name] and Similarity(**record[name]) for name in ("raw", "comir")}
    shape, folding = Shape(**record["shape"]), Folding(**record["folding"])
    error = TileError(**record["tile_error"]) if record.get("tile_error") else None  # earlier versions had none
    inverse = InverseError(**record["inverse"]) if record.get("inverse") else None  # nor this
    own = {"shape": shape, "folding": folding, "failed": tuple(record["failed"]), "tile_error": error}
    own |= {"inverse": inverse}
    return Evidence(**{**record, **views, **own})


def is_found(error_px: float | None, side: int) -> bool:
    """Tell whether a transform with such a mean error counts as found on a field of a side."""
    return error_px is not None and error_px <= FOUND * side


class Judged(NamedTuple):
    """What became of a field with a method of ours.

    Attributes
    ----------
    condition : str
        Name of the condition.
    number : int
        Of the field.
    method : str
        Name of the method.
    error_px : float or None
        Mean error; None without a transform or a truth.
    found : bool
        Whether the true transform was found.
    judgement : Judgement or None
        None where there is no transform.
    """

    condition: str
    number: int
    method: str
    error_px: float | None
    found: bool
    judgement: Judgement | None


def judged(rows: Iterable[Row], conditions: Sequence[Condition], config: JudgeConfig) -> list[Judged]:
    """Judge all results with recorded evidence, in the order of the conditions, by thresholds."""
    order = {condition.name: number for number, condition in enumerate(conditions)}
    sides = {condition.name: condition.side for condition in conditions}
    known = sorted((row for row in rows if row["condition"] in order), key=lambda row: order[row["condition"]])
    return [each for row in known for each in _judged(row, sides[row["condition"]], config)]


def verdicts_csv(fields: Iterable[Judged]) -> str:
    """Return a table of all verdicts with their numbers, a line for each field and method."""
    rows = [_flat(each) for each in fields]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text(columns, [[row.get(name, "") for name in columns] for row in rows])


def _flat(each: Judged) -> dict[str, Any]:
    condition, number, method, error, found, judgement = each
    head = {"condition": condition, "number": number, "method": method, "error_px": error, "found": int(found)}
    return head | ({"verdict": judgement.verdict.value} | judgement.metrics if judgement else {"verdict": ""})


def _judged(row: Row, side: int, config: JudgeConfig) -> Iterator[Judged]:
    for method, record in row.get("evidence", {}).items():
        error = row["methods"][method][0]
        judgement = judge(restored(record), config) if record else None
        yield Judged(row["condition"], row["number"], method, error, is_found(error, side), judgement)


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of verdicts.

    Attributes
    ----------
    accepted, reviewed, rejected, without : int
        Fields by their verdicts; the last had no transform to judge.
    found : int
        Fields whose true transform was found.
    accepted_found, rejected_found : int
        Of these, the accepted and the rejected ones.
    """

    accepted: int = 0
    reviewed: int = 0
    rejected: int = 0
    without: int = 0
    found: int = 0
    accepted_found: int = 0
    rejected_found: int = 0

    @classmethod
    def of(cls, fields: Iterable[Judged]) -> Tally:
        """Count."""
        pairs = [(each.judgement and each.judgement.verdict, each.found) for each in fields]
        verdicts, found = [verdict for verdict, _ in pairs], [verdict for verdict, is_right in pairs if is_right]
        return cls(
            verdicts.count(Verdict.ACCEPT),
            verdicts.count(Verdict.REVIEW),
            verdicts.count(Verdict.REJECT),
            verdicts.count(None),
            len(found),
            found.count(Verdict.ACCEPT),
            found.count(Verdict.REJECT),
        )

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def fields(self) -> int:
        """All of them."""
        return self.accepted + self.reviewed + self.rejected + self.without

    @property
    def false_accepts(self) -> int:
        """Fields that were accepted with a wrong transform; where crops do not belong together every one is wrong."""
        return self.accepted - self.accepted_found

    def to_json(self) -> dict[str, float]:
        """Return all counts, and the one-sided upper bounds of the shares of false accepts and rejects."""
        return {
            **asdict(self),
            "fields": self.fields,
            "false_accepts": self.false_accepts,
            "false_accepts_most": at_most(self.false_accepts, self.fields),
            "false_rejects_most": at_most(self.rejected_found, self.found),
        }


class Tallies(NamedTuple):
    """The tallies of a condition, or of several together, by name of the method."""

    title: str
    methods: dict[str, Tally]


def tallied(fields: Sequence[Judged], conditions: Sequence[Condition]) -> list[Tallies]:
    """Return the tallies of each condition with verdicts; then of all with a truth, and of all without."""
    by_condition: dict[str, dict[str, list[Judged]]] = {}
    for each in fields:
        by_condition.setdefault(each.condition, {}).setdefault(each.method, []).append(each)
    counted = {
        name: {method: Tally.of(some) for method, some in methods.items()} for name, methods in by_condition.items()
    }
    tallies = [Tallies(each.title, counted[each.name]) for each in conditions if each.name in counted]
    for title, wrong in (("all fields with a truth", False), ("all wrong and blank ones", True)):
        kind = [counted[each.name] for each in conditions if each.name in counted and (each.kind == "wrong") is wrong]
        if len(kind) > 1:
            tallies.append(Tallies(title, _together(kind)))
    return tallies


def _together(counted: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    methods = dict.fromkeys(method for each in counted for method in each)
    return {method: sum((each[method] for each in counted if method in each), Tally()) for method in methods}
