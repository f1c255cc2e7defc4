"""Every file name of a training's folder, beside those of the model itself (see representation/store)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrainingFiles:
    """The folder that `train` fills; the model lies in it."""

    root: Path

    @property
    def data(self) -> Path:
        """The slides as Zarr, a run directory; removed when the training ends."""
        return self.root / "data"

    @property
    def from_run(self) -> Path:
        """The pairs that were taken from a run: a manifest and masks."""
        return self.root / "from-run"

    @property
    def checkpoint(self) -> Path:
        """What a stopped training needs to go on; removed when it ends."""
        return self.root / "checkpoint.safetensors"

    @property
    def draft(self) -> Path:
        """The model until it is measured, so that a training that is killed meanwhile can be resumed."""
        return self.root / "draft"

    @property
    def record(self) -> Path:
        """Settings, data, losses and validations."""
        return self.root / "training.json"

    @property
    def report(self) -> Path:
        """The report."""
        return self.root / "report.html"
