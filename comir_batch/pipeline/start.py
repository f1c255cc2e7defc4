"""The start that "before" means: the user's initial transform, else both slides laid centre on centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.transform import Affine, Composite
from comir_batch.io.transform_files import read_transform

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.geometry import Grid


def start_transform(fixed: Grid, moving: Grid, initial: Path | None) -> Composite:
    """Return the transform before any registration, fixed to moving points in µm."""
    if initial is not None:
        return read_transform(initial)
    shift = moving.corners_um().mean(axis=0) - fixed.corners_um().mean(axis=0)
    return Composite((Affine(np.array([[1.0, 0.0], [0.0, 1.0]]), shift),))
