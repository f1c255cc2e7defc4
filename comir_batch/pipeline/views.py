"""Views of a pair: its representations, and its raw images in grey, on the grids that registration works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid, Region
from comir_batch.io.tables import read_points
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview, sample_nearest
from comir_batch.pipeline.strips import read_reduced
from comir_batch.registration.evened import raw_view
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.memory import reduction_for
from comir_batch.representation.one_image import as_one_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.pipeline.working import Working
    from comir_batch.registration.images import Landmarks

    _Convert = Callable[[NDArray[np.generic]], NDArray[np.generic]]

_GREY_PERCENTILES = (1.0, 99.5)
_COMIR_BYTES = 2  # of a pixel, as it is stored by default


@dataclass(frozen=True, slots=True)
class Side:
    """One slide of a pair as registration reads it.

    Attributes
    ----------
    chunk : Path
        Folder of its chunk job.
    representation : Path or None
        Folder of its represent job; None without a model.
    working : Working
        Its working level.
    """

    chunk: Path
    representation: Path | None
    working: Working


def reduction(fixed: Side, moving: Side, config: RegisterConfig) -> int:
    """Return the whole-number factor by which both images are reduced so that registration fits the memory."""
    a, b = fixed.working.grid, moving.working.grid
    seconded = config.second_metric == "raw"
    return reduction_for((a.width, a.height), (b.width, b.height), config.max_memory_gb, seconded=seconded)


def read_mb(sides: Iterable[Side]) -> float:
    """Return how many MB of decoded pixels loading both slides reads: chunks, and representations if there are any."""
    return (
        sum(
            side.working.grid.width
            * side.working.grid.height
            * (side.working.info.pixel_bytes + _COMIR_BYTES * (side.representation is not None))
            for side in sides
        )
        / 1e6
    )


def read_landmarks(paths: tuple[Path | None, Path | None], fixed: Side, moving: Side) -> Landmarks | None:
    """Return fixed and moving landmarks in µm; None where there are not both."""
    first, second = paths
    if first is None or second is None:
        return None
    return read_points(first, fixed.working.info.grid()), read_points(second, moving.working.info.grid())


def load_views(fixed: Side, moving: Side, factor: int) -> tuple[View, ...]:
    """Load both slides.

    Parameters
    ----------
    fixed, moving : Side
        The slides.
    factor : int
        Reduction of the working level.

    Returns
    -------
    tuple of View
        `comir` (normalised correlation), if both are represented, then `raw` (mutual information), on the same grids.
    """
    masks, grids = _masks(fixed, moving, factor), _grids(fixed, moving, factor)
    views = []
    if fixed.representation is not None and moving.representation is not None:
        images = _comirs((fixed.representation, moving.representation), masks, factor)
        views.append(View("comir", "ncc", *_images(images, masks, grids)))
    return (*views, raw_view(*load_grey(fixed, moving, factor)))


def load_grey(fixed: Side, moving: Side, factor: int) -> tuple[RegistrationImage, RegistrationImage]:
    """Load both slides as they were scanned, in grey, 0 to 1; see `load_views`."""
    images = [_grey(side, factor) for side in (fixed, moving)]
    return _images(images, _masks(fixed, moving, factor), _grids(fixed, moving, factor))


def _grids(fixed: Side, moving: Side, factor: int) -> tuple[Grid, Grid]:
    return fixed.working.grid.reduced(factor), moving.working.grid.reduced(factor)


def _masks(fixed: Side, moving: Side, factor: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    masks = _mask(fixed, factor), _mask(moving, factor)
    for name, mask in zip(("fixed", "moving"), masks, strict=True):
        if not mask.any():
            raise RegistrationError(
                f"the {name} slide has no tissue, or its mask leaves none; check it, or give a mask"
            )
    return masks


def _images(
    pixels: list[NDArray[np.float32]], masks: tuple[NDArray[np.bool_], ...], grids: tuple[Grid, ...]
) -> tuple[RegistrationImage, RegistrationImage]:
    finite = [np.isfinite(image) for image in pixels]
    fixed, moving = (
        RegistrationImage(np.where(known, image, 0).astype(np.float32), mask & known, grid)
        for image, known, mask, grid in zip(pixels, finite, masks, grids, strict=True)
    )
    return fixed, moving


def _comirs(
    folders: tuple[Path, Path], masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], factor: int
) -> list[NDArray[np.float32]]:
    first, second = (_load(ZarrArray.open(SlideFiles(folder).pixels), factor, _float) for folder in folders)
    return list(as_one_image((first, second), masks))


def _grey(side: Side, factor: int) -> NDArray[np.float32]:
    """Return the mean over channels, scaled to 0..1 between percentiles of the slide's tissue."""
    files = SlideFiles(side.chunk)
    overview = Overview.load(files.overview)
    thumbnail = overview.pixels.astype(np.float32).mean(axis=0)
    tissue = thumbnail[overview.tissue] if overview.tissue.any() else thumbnail
    low, high = np.percentile(tissue, _GREY_PERCENTILES)
    grey = _load(ZarrArray.open(files.pixels), factor, _mean)[0]
    return np.asarray(np.clip((grey - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1), dtype=np.float32)


def _load(array: ZarrArray, factor: int, convert: _Convert) -> NDArray[np.float32]:
    """Read a whole array, converted and then reduced strip by strip."""
    channels, height, width = array.shape
    whole, pixel_bytes = Region(0, 0, width, height), channels * max(array.dtype.itemsize, 4)
    return read_reduced(array.read, whole, factor, pixel_bytes, convert).astype(np.float32, copy=False)


def _float(strip: NDArray[np.generic]) -> NDArray[np.generic]:
    return strip.astype(np.float32)


def _mean(strip: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.asarray(strip.mean(axis=0, keepdims=True, dtype=np.float32))


def _mask(side: Side, factor: int) -> NDArray[np.bool_]:
    grid = side.working.grid.reduced(factor)
    overview = Overview.load(SlideFiles(side.chunk).overview)
    return sample_nearest(overview.tissue, overview.grid, grid)
