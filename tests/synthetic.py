"""Pairs with a known truth: an image turned, shifted and smoothly deformed by a transform that is known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite


@dataclass(frozen=True)
class Motion:
    """A known motion: a turn (after a mirroring of x, if any) about the centre, a shift, and a smooth deformation."""

    angle_deg: float = 25.0
    shift_um: tuple[float, float] = (35.0, -20.0)
    mirrored: bool = False
    amplitude_um: float = 12.0  # largest displacement of the deformation
    spacing_um: float = 300.0  # between its control points
    seed: int = 0


def deformed(image, grid: Grid, motion: Motion | None = None, fill: float = 0.0):
    """Return ``(moving (C, Y, X) or (Y, X), its Grid, truth)`` for an image that lies on the fixed grid.

    ``moving`` shows at ``truth.map(x)`` what ``image`` shows at ``x`` (µm). Its grid begins at (0, 0).
    """
    motion = motion or Motion()
    truth, size_um = _truth(grid, motion)
    width, height = (math.ceil(size / mpp) for size, mpp in zip(size_um, (grid.mpp_x, grid.mpp_y), strict=True))
    moving_grid = Grid(width, height, grid.mpp_x, grid.mpp_y)
    places = grid.to_pixels(_inverse(truth, moving_grid)).reshape(height, width, 2).astype(np.float32)
    planes = np.atleast_3d(image) if image.ndim == 2 else np.moveaxis(image, 0, -1)
    moved = [
        cv2.remap(plane, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
        for plane in np.moveaxis(np.ascontiguousarray(planes), -1, 0).copy()
    ]
    return (moved[0] if image.ndim == 2 else np.stack(moved)), moving_grid, truth


def _truth(grid: Grid, motion: Motion) -> tuple[Composite, tuple[float, float]]:
    bend = _smooth(grid, motion)
    angle = math.radians(motion.angle_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.diag([-1.0 if motion.mirrored else 1.0, 1.0])
    corners = grid.corners_um() @ matrix.T
    margin = 2 * motion.amplitude_um + np.abs(motion.shift_um)
    offset = margin + np.array(motion.shift_um) - corners.min(axis=0)
    size = corners.max(axis=0) - corners.min(axis=0) + 2 * margin
    return Composite((bend, Affine(matrix, offset))), tuple(size)


def _smooth(grid: Grid, motion: Motion) -> BSpline:
    spacing = motion.spacing_um
    columns, rows = (math.ceil(size / spacing) + 6 for size in grid.size_um)
    origin = np.array([grid.origin_x, grid.origin_y]) - 2.5 * spacing
    coefficients = np.random.default_rng(motion.seed).normal(size=(2, rows, columns))
    bend = BSpline(origin, np.array([spacing, spacing]), coefficients)
    largest = np.linalg.norm(bend.displacement(_lattice(grid, 16)[0]), axis=1).max()
    return BSpline(origin, bend.spacing, coefficients * motion.amplitude_um / largest)


def _inverse(truth: Composite, grid: Grid, step: int = 8):
    """Where each moving pixel comes from: solved on a lattice by fixed-point iteration, then cubic splines."""
    points, (columns, rows) = _lattice(grid, step)
    bend, affine = truth.parts
    unturned = affine.inverse().map(points)
    solved = unturned - bend.displacement(unturned)
    for _ in range(30):
        solved = unturned - bend.displacement(solved)
    y, x = np.meshgrid(np.arange(grid.height) / step, np.arange(grid.width) / step, indexing="ij")
    fields = solved.reshape(rows, columns, 2)
    # mode "nearest" would bend the border; the lattice reaches two nodes beyond the image instead
    return np.stack([ndimage.map_coordinates(fields[..., k], (y + 2, x + 2), order=3).ravel() for k in (0, 1)], axis=1)


def _lattice(grid: Grid, step: int):
    xs = np.arange(-2 * step, grid.width + 3 * step, step)
    ys = np.arange(-2 * step, grid.height + 3 * step, step)
    y, x = np.meshgrid(ys, xs, indexing="ij")
    return grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1)), (len(xs), len(ys))
