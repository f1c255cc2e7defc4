"""Writes a transform in a dialect, and measures how far what is written lies from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.errors import UserError
from comir_batch.pipeline.dialects import dialect_named
from comir_batch.pipeline.encoding import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite
    from comir_batch.pipeline.dialects import Dialect
    from comir_batch.pipeline.encoding import Encoded
    from comir_batch.pipeline.known_slides import Side

_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes
    ----------
    median_um, max_um : float
        Distance between what is written and the transform, at random points of the fixed slide.
    lost : int
        Knots at which the transform folds and has no inverse; the nearest one stands there.
    """

    dialect: Dialect
    path: Path
    maps: str
    median_um: float
    max_um: float
    lost: int

    def about(self) -> dict[str, Any]:
        """Return convention and error in JSON's own types."""
        return {
            "maps": self.maps,
            "unit": self.dialect.unit,
            "pixel_centre": self.dialect.centre,
            "error_um": {"median": self.median_um, "max": self.max_um},
        }


def write(job: Job, dialect: Dialect, path: Path, tolerance_um: float | None = None) -> Written:
    """Write a transform in a dialect.

    Parameters
    ----------
    job : Job
        Transform, direction, slides.
    dialect : Dialect
        In which to write.
    path : Path
        File or folder to be made.
    tolerance_um : float or None
        Largest error, in µm, that may be written; None for any.

    Returns
    -------
    Written
        With its error, which is measured before anything is written.

    Raises
    ------
    UserError
        If the path is taken or has another suffix, a slide is wanted that is not known, the transform has no inverse,
        or the error is larger than the tolerance.
    """
    _check_path(path, dialect)
    encoded = dialect.encode(job)
    median, largest = _error(job, encoded)
    if tolerance_um is not None and largest > tolerance_um:
        raise UserError(
            f"{path}: in {dialect.name} it would lie up to {largest:.3g} µm off (median {median:.3g}), more than the "
            f"{tolerance_um:g} µm asked for. Choose a dialect that holds more of it: comir-batch transform dialects"
        )
    written = Written(dialect, path, job.maps, median, largest, encoded.lost)
    encoded.save(path, written.about())
    return written


def write_sidecars(
    transform: Composite, names: Sequence[str], folder: Path, slides: Callable[[Side], Grid | None]
) -> list[dict[str, Any]]:
    """Write a transform in several dialects into a folder and return what was written, in JSON's own types."""
    written = []
    for dialect in map(dialect_named, names):
        about = write(Job(transform, dialect.forward, slides), dialect, folder / dialect.file).about()
        written.append({"file": dialect.file, "dialect": dialect.name, "holds": dialect.holds, **about})
    return written


def _check_path(path: Path, dialect: Dialect) -> None:
    if dialect.suffixes and path.suffix.lower() not in dialect.suffixes:
        wanted = " or ".join(dialect.suffixes)
        raise UserError(f"{path}: the name of a file in {dialect.name} ends in {wanted}. Give another name")
    if path.exists():
        raise UserError(f"{path}: is there already. Remove it, or give another name")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}. Make it first")


def _error(job: Job, encoded: Encoded) -> tuple[float, float]:
    """Return the median and the largest distance in µm; 0 where neither dialect nor direction costs anything."""
    if (job.affine() is not None and not encoded.ends) or encoded.map == job.transform.map:
        return 0.0, 0.0
    grid = job.slide("fixed")
    unit = np.random.default_rng(0).uniform(0, 1, (_POINTS, 2))
    source, target = job.pairs(grid.to_um(unit * [grid.width, grid.height] - 0.5))
    distance = np.linalg.norm(encoded.map(source) - target, axis=1)
    return float(np.median(distance)), float(distance.max())
