"""Pairs with a known truth: a slide turned, shifted and smoothly deformed by a transform that is known exactly."""

from __future__ import annotations

import hashlib
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import cv2
import numpy as np
from scipy import ndimage

from comir_batch.core.geometry import Grid, Region
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.warp.reduce import reduce_area

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SMALLEST_SIDE = 512
_SHARD = 1024


@dataclass(frozen=True)
class Motion:
    """A known motion: a turn (after a mirroring of x, if any) about the centre, a shift, and a smooth deformation.

    Attributes
    ----------
    angle_deg : float
        Of the turn.
    shift_um : (float, float)
        Along x and y.
    mirrored : bool
        Whether x is mirrored first.
    amplitude_um : float
        Largest displacement of the deformation.
    spacing_um : float
        Between the control points of the deformation.
    seed : int
        Of the deformation's coefficients.
    """

    angle_deg: float = 25.0
    shift_um: tuple[float, float] = (35.0, -20.0)
    mirrored: bool = False
    amplitude_um: float = 12.0
    spacing_um: float = 300.0
    seed: int = 0


def move(pixels: NDArray[Any], grid: Grid, motion: Motion, fill: float = 0.0) -> tuple[NDArray[Any], Grid, Composite]:
    """Move an image by a known motion.

    Parameters
    ----------
    pixels : (C, Y, X)
        Lies on `grid`, which is also the fixed slide's.
    grid : Grid
        Its first pixel may lie anywhere.
    motion : Motion
        How it moves.
    fill : float
        What lies outside the image.

    Returns
    -------
    moving : (C, Y', X')
        Shows at ``truth.map(x)`` what `pixels` shows at ``x`` (µm), by cubic interpolation; holds the whole image.
    moving_grid : Grid
        Begins at (0, 0).
    truth : Composite
        Fixed to moving points.
    """
    truth, size_um = _truth(grid, motion)
    width, height = math.ceil(size_um[0] / grid.mpp_x), math.ceil(size_um[1] / grid.mpp_y)
    moving_grid = Grid(width, height, grid.mpp_x, grid.mpp_y)
    places = grid.to_pixels(_inverse(truth, moving_grid)).reshape(height, width, 2).astype(np.float32)
    planes = [
        cv2.remap(plane, places, np.empty(0), cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
        for plane in pixels
    ]
    return np.stack(planes), moving_grid, truth


def write_pyramid(pixels: NDArray[Any], grid: Grid, path: Path, channels: Sequence[str]) -> None:
    """Write ``(C, Y, X)`` pixels as a pyramidal OME-TIFF; three channels red, green and blue become a colour image.

    The file's identifier follows from the pixels, so that the same ones make the same file.
    """
    uuid = UUID(bytes=hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).digest()[:16])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pyramid-") as folder:
        levels: list[ZarrArray] = []
        while True:
            array = ZarrArray.create(
                Path(folder) / str(len(levels)), pixels.shape, pixels.dtype, chunk=_SHARD // 4, shard=_SHARD
            )
            array.write(Region(0, 0, pixels.shape[2], pixels.shape[1]), pixels)
            levels.append(array)
            if max(pixels.shape[1:]) <= _SMALLEST_SIDE:
                break
            pixels = reduce_area(pixels, 2)
        is_rgb = tuple(channels) == ("red", "green", "blue")
        write_ome_tiff(levels, path, TiffImage(path.stem, grid, tuple(channels), is_rgb, uuid), "deflate")


@dataclass(frozen=True)
class Errors:
    """Distances in µm between where points were mapped and where they belong."""

    median: float
    p95: float
    worst: float

    def __str__(self) -> str:
        return f"median {self.median:.2f} µm, 95th percentile {self.p95:.2f} µm, largest {self.worst:.2f} µm"


def errors(found: Composite, truth: Composite, points: NDArray[np.float64]) -> Errors:
    """Return the distances between two transforms at ``(N, 2)`` points of the fixed slide in µm."""
    distances = np.linalg.norm(found.map(points) - truth.map(points), axis=1)
    median, p95 = np.percentile(distances, [50, 95])
    return Errors(float(median), float(p95), float(distances.max()))


def _truth(grid: Grid, motion: Motion) -> tuple[Composite, NDArray[np.float64]]:
    bend = smooth_bend(grid, motion)
    matrix = _rotation(motion.angle_deg) @ np.diag([-1.0 if motion.mirrored else 1.0, 1.0])
    corners = grid.corners_um() @ matrix.T
    margin = 2 * motion.amplitude_um + np.abs(motion.shift_um)
    offset = margin + np.array(motion.shift_um) - corners.min(axis=0)
    size = corners.max(axis=0) - corners.min(axis=0) + 2 * margin
    return Composite((bend, Affine(matrix, offset))), size


def _rotation(angle_deg: float) -> NDArray[np.float64]:
    angle = math.radians(angle_deg)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def turned(grid: Grid, angle_deg: float, shift: float) -> Affine:
    """Return a turn about a grid's centre and a shift by a share of its sides, so that most of it stays on the grid."""
    return Affine.about(_rotation(angle_deg), grid.corners_um().mean(axis=0), shift * np.array(grid.size_um))


def smooth_bend(grid: Grid, motion: Motion, step: int = 16) -> BSpline:
    """Return a motion's deformation alone, a spline that reaches over all of a grid.

    Parameters
    ----------
    grid : Grid
        The fixed slide's.
    motion : Motion
        Its `amplitude_um`, `spacing_um` and `seed` count.
    step : int
        Pixels between the points on which the largest displacement is measured; their number sets the memory.
    """
    spacing = motion.spacing_um
    columns, rows = (math.ceil(size / spacing) + 6 for size in grid.size_um)
    origin = np.array([grid.origin_x, grid.origin_y]) - 2.5 * spacing
    coefficients = np.random.default_rng(motion.seed).normal(size=(2, rows, columns))
    bend = BSpline(origin, np.array([spacing, spacing]), coefficients)
    largest = np.linalg.norm(bend.displacement(_lattice(grid, step)[0]), axis=1).max()
    return BSpline(origin, bend.spacing, coefficients * motion.amplitude_um / largest)


def _inverse(truth: Composite, grid: Grid, step: int = 16) -> NDArray[np.float64]:
    """Solve where each moving pixel comes from: on a lattice by fixed-point iteration, between its nodes by splines."""
    points, (columns, rows) = _lattice(grid, step)
    bend, affine = truth.parts
    if not isinstance(bend, BSpline) or not isinstance(affine, Affine):
        raise TypeError("a known motion is a B-spline followed by an affine transform")
    unturned = affine.inverse().map(points)
    solved = unturned - bend.displacement(unturned)
    for _ in range(30):
        solved = unturned - bend.displacement(solved)
    y, x = np.meshgrid(np.arange(grid.height) / step, np.arange(grid.width) / step, indexing="ij")
    fields = solved.reshape(rows, columns, 2)
    # The lattice reaches two nodes beyond the image, since splines bend at their borders.
    return np.stack([ndimage.map_coordinates(fields[..., k], (y + 2, x + 2), order=3).ravel() for k in (0, 1)], axis=1)


def _lattice(grid: Grid, step: int) -> tuple[NDArray[np.float64], tuple[int, int]]:
    xs = np.arange(-2 * step, grid.width + 3 * step, step)
    ys = np.arange(-2 * step, grid.height + 3 * step, step)
    y, x = np.meshgrid(ys, xs, indexing="ij")
    return grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1)), (len(xs), len(ys))
