"""What each dialect makes of a transform: what it will map points to, and how it is saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.approximation import (
    DisplacementField,
    ThinPlates,
    best_affine,
    exact_affine,
    inverse_transform,
    lattice,
)
from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.io.displacement_file import write_mha
from comir_batch.io.ngff_scene import write_scene
from comir_batch.io.transform_files import write_itk, write_json
from comir_batch.io.viewer_affines import NAPARI_CENTRE, QUPATH_CENTRE, between_pixels, write_napari, write_qupath
from comir_batch.io.warpy_transform import write_warpy
from comir_batch.io.whole import whole_folder
from comir_batch.registration.elastix_maps import write_chain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from comir_batch.pipeline.known_slides import Side

    Points = NDArray[np.float64]

_LATTICE = 4096
_LANDMARKS = 400  # readers solve for all of them at once
_MOST_LANDMARKS = 4000
_SAMPLES = 4_000_000
_MOST_SAMPLES = 25_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """A transform to be written in one direction.

    Attributes
    ----------
    transform : Composite
        Fixed µm to moving µm.
    forward : bool
        Whether what is written maps fixed points to moving points, or moving points to fixed points.
    slides : callable
        Returns level 0 of a slide, a grid of one pixel where only the pixel size is known, None where nothing is.
    spacing_um : float
        Between the samples of a field, or between landmarks; 0 to choose.
    """

    transform: Composite
    forward: bool
    slides: Callable[[Side], Grid | None]
    spacing_um: float = 0.0

    @property
    def source(self) -> Side:
        """The slide whose points are mapped."""
        return "fixed" if self.forward else "moving"

    @property
    def target(self) -> Side:
        """The slide to whose points they are mapped."""
        return "moving" if self.forward else "fixed"

    @property
    def maps(self) -> str:
        """The direction in words."""
        return f"{self.source} to {self.target}"

    def pixels(self, side: Side) -> Grid:
        """Return a slide's grid, of which only the pixel size may be true; raises UserError where that is not known."""
        grid = self.slides(side)
        if grid is None:
            remedy = f"Give --{side} SLIDE or --{side}-mpp UM, or the pair's folder of a run"
            raise UserError(f"this dialect needs the pixel size of the {side} slide, which is not known. {remedy}")
        return grid

    def slide(self, side: Side) -> Grid:
        """Return a slide's grid; raises UserError where its size is not known."""
        grid = self.slides(side)
        if grid is None or grid.shape == (1, 1):
            remedy = f"Give --{side} SLIDE, or the pair's folder of a run"
            raise UserError(f"this dialect needs the size of the {side} slide, which is not known. {remedy}")
        return grid

    def pairs(self, fixed: Points) -> tuple[Points, Points]:
        """Return points to be mapped and what they are to be mapped to, from points of the fixed slide."""
        moving = self.transform.map(fixed)
        return (fixed, moving) if self.forward else (moving, fixed)

    def affine(self) -> Affine | None:
        """Return the affine that is to be written, or None if the transform bends."""
        exact = exact_affine(self.transform)
        return exact if exact is None or self.forward else exact.inverse()


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a dialect makes of a job.

    Attributes
    ----------
    map : callable
        Maps points in µm as the file will.
    save : callable
        Writes the file; takes its path and, for formats that have room for it, convention and error.
    lost : int
        Knots or samples at which the transform folds and has no inverse; the nearest one stands there.
    ends : bool
        Whether it ends at the border of a slide, beyond which not even an affine is held.
    """

    map: Callable[[ArrayLike], Points]
    save: Callable[[Path, dict[str, Any]], None]
    lost: int = 0
    ends: bool = False


def _directed(job: Job) -> tuple[Composite, int]:
    return (job.transform, 0) if job.forward else inverse_transform(job.transform)


def own_json(job: Job) -> Encoded:
    """Encode as our JSON."""
    whole, lost = _directed(job)
    return Encoded(whole.map, lambda path, _: write_json(whole, path, maps=job.maps), lost)


def itk(job: Job) -> Encoded:
    """Encode as an ITK composite."""
    whole, lost = _directed(job)
    return Encoded(whole.map, lambda path, _: write_itk(whole, path), lost)


def elastix(job: Job) -> Encoded:
    """Encode as elastix' parameter files, a chain in a folder."""
    whole, lost = _directed(job)
    whole, grid = whole if whole.parts else Composite((Affine.identity(),)), job.slide(job.source)

    def save(path: Path, _: dict[str, Any]) -> None:
        with whole_folder(path) as partial:
            partial.mkdir()
            write_chain(whole, grid, partial, "TransformParameters")

    return Encoded(whole.map, save, lost)


def mha(job: Job) -> Encoded:
    """Encode as a displacement field."""
    field, lost = _field(job)
    return Encoded(field.map, lambda path, _: write_mha(field, path), lost, ends=True)


def scene(job: Job) -> Encoded:
    """Encode as a scene of OME-Zarr."""
    affine = job.affine()
    content, lost = _field(job) if affine is None else (affine, 0)
    return Encoded(content.map, lambda path, _: write_scene(content, path, source=job.source, target=job.target), lost)


def napari(job: Job) -> Encoded:
    """Encode as napari's affine between µm."""
    affine = _affine(job)
    return Encoded(affine.map, partial(write_napari, affine))


def napari_px(job: Job) -> Encoded:
    """Encode as napari's affine between pixels."""
    affine = _affine(job)
    return Encoded(affine.map, partial(write_napari, _between_pixels(affine, job, NAPARI_CENTRE)))


def qupath(job: Job) -> Encoded:
    """Encode as QuPath's affine between pixels."""
    affine = _affine(job)
    return Encoded(affine.map, partial(write_qupath, _between_pixels(affine, job, QUPATH_CENTRE)))


def warpy(job: Job) -> Encoded:
    """Encode as Warpy's JSON."""
    source, target = job.pixels(job.source), job.pixels(job.target)
    content = job.affine() or ThinPlates(*job.pairs(lattice(job.slide("fixed"), _landmarks(job))))
    return Encoded(content.map, lambda path, _: write_warpy(content, source, target, path))


def _landmarks(job: Job) -> int:
    if not job.spacing_um:
        return _LANDMARKS
    width, height = job.slide("fixed").size_um
    count = round(width * height / job.spacing_um**2)
    if count > _MOST_LANDMARKS:
        wider = (width * height / _MOST_LANDMARKS) ** 0.5
        raise UserError(f"{count} landmarks are more than can be solved for. Give --spacing of {wider:.3g} µm or more")
    return count


def _affine(job: Job) -> Affine:
    return job.affine() or best_affine(*job.pairs(lattice(job.slide("fixed"), _LATTICE)))


def _between_pixels(affine: Affine, job: Job, centre: float) -> Affine:
    return between_pixels(affine, job.pixels(job.source), job.pixels(job.target), centre)


def _field(job: Job) -> tuple[DisplacementField, int]:
    whole, lost = _directed(job)
    return DisplacementField.of(whole, field_grid(job)), lost


def field_grid(job: Job) -> Grid:
    """Return where a field is sampled: from border to border, by default with sixteen samples between two knots.

    Raises
    ------
    UserError
        If so many samples are asked for that they would fill the memory.
    """
    grid = job.slide(job.source)
    width, height = grid.size_um
    knots = [float(part.spacing.min()) for part in job.transform.parts if isinstance(part, BSpline)]
    usual = max(min(knots, default=max(width, height)) / 16, (width * height / _SAMPLES) ** 0.5)
    spacing = job.spacing_um or usual
    columns, rows = int(np.ceil(width / spacing)) + 1, int(np.ceil(height / spacing)) + 1
    if columns * rows > _MOST_SAMPLES:
        raise UserError(
            f"a field of {columns} x {rows} samples is too large. Give --spacing of {usual:.3g} µm or so, or none"
        )
    x, y = grid.to_um([[-0.5, -0.5]])[0]
    return Grid(columns, rows, spacing, spacing, float(x), float(y))
