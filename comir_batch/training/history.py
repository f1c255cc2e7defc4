"""What happened in a training, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comir_batch.training.validate import Validation


@dataclass(slots=True)
class History:
    """Grows with a training, and is what its report draws.

    Attributes
    ----------
    losses : list of float
        Of each step.
    validations : dict
        By the number of steps done.
    seconds : float
        Spent on learning and validating, over all sittings.
    """

    losses: list[float] = field(default_factory=list)
    validations: dict[int, Validation] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> int:
        """Steps after which validation went best; the earliest of equals. 0 before the first validation."""
        best = 0
        for step, validation in self.validations.items():
            if validation.beats(self.validations.get(best)):
                best = step
        return best

    def is_over(self, steps: int, patience: int) -> bool:
        """Tell whether so many validations of the second half of the steps brought no progress."""
        later = [step for step in self.validations if step > max(self.best, steps // 2)]
        return len(later) >= patience

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        validations = [{"step": n, "success": list(v.success), "error": v.error} for n, v in self.validations.items()]
        return {"losses": self.losses, "validations": validations, "seconds": self.seconds}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> History:
        """Return what `to_json` wrote."""
        validations = {v["step"]: Validation(tuple(v["success"]), v["error"]) for v in values["validations"]}
        return cls(list(values["losses"]), validations, float(values["seconds"]))
