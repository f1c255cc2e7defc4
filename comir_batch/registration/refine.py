"""Block refinement: what many blocks say, repaired and fitted by one smooth displacement that does not fold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from comir_batch.core.transform import BSpline, Composite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

    Floats = NDArray[np.float64]

_AROUND = 2  # blocks to each side that an offset is held against
_LEAST_NEIGHBOURS = 3
_FAR = 4.0  # robust standard deviations from its neighbours' median, at which an offset is an outlier,
_NEAR_PX = 1.0  # but not within so many pixels
_LEAST_BLOCKS = 12
_SPACING = 2  # blocks from one control point to the next
_LEAST_AREA = 0.2  # of the displacement's Jacobian determinant
_STIFFNESSES = tuple(0.02 * 4.0**step for step in range(12))
_RIDGE = 1e-9  # of the normal equations: decides what no block does


class State(IntEnum):
    """What became of a block."""

    EMPTY = 0
    FAILED = 1
    OUTLIER = 2
    USED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks that cover the fixed image, and from where they lie, where they fit the moving image best.

    Attributes
    ----------
    grid : Grid
        Pixels of the fixed image.
    side : int
        Of the blocks, in pixels; the first one begins at the first pixel.
    offsets : (R, C, 2) float64
        Pixels, ``(x, y)``; NaN where none was found.
    tried : (R, C) bool
        Which hold enough tissue to be looked for.
    """

    grid: Grid
    side: int
    offsets: Floats
    tried: NDArray[np.bool_]

    @property
    def centres_um(self) -> Floats:
        """Middles of the blocks, ``(R, C, 2)``, in fixed µm."""
        rows, columns = np.indices(self.tried.shape)
        pixels = (np.stack([columns, rows], axis=-1) + 0.5) * self.side - 0.5
        return self.grid.to_um(pixels.reshape(-1, 2)).reshape(pixels.shape)

    @property
    def offsets_um(self) -> Floats:
        """Offsets in µm."""
        return self.offsets * (self.grid.mpp_x, self.grid.mpp_y)


class Refined(NamedTuple):
    """The refined transform, what became of each block, and how stiff the displacement had to be; 0 for none.

    Where there are too few blocks, or what they say folds however stiff, the transform is what it was.
    """

    transform: Composite
    states: NDArray[np.uint8]
    stiffness: float


def refine(transform: Composite, blocks: Blocks) -> Refined:
    """Return a transform, fixed µm to moving µm, after a displacement of the fixed points that blocks agree on.

    Offsets that lie far from their neighbours' median are left out. A cubic B-spline is fitted to the others by least
    squares, with its coefficients' second differences as penalty (P-splines; Eilers and Marx, Statistical Science
    1996); it is made stiffer until nothing folds.

    Parameters
    ----------
    transform : Composite
        As the blocks were looked for.
    blocks : Blocks
        What was found. Control points lie two blocks apart.
    """
    states = _states(blocks)
    used = states == State.USED
    if np.count_nonzero(used) < _LEAST_BLOCKS:
        return Refined(transform, states, 0.0)
    spacing_um = _SPACING * blocks.side * max(blocks.grid.mpp_x, blocks.grid.mpp_y)
    lattice = _lattice(blocks.grid, spacing_um / 4)
    for stiffness in _STIFFNESSES:
        spline = _fitted(blocks.centres_um[used], blocks.offsets_um[used], blocks.grid, spacing_um, stiffness)
        areas = Composite((spline,)).jacobian_determinant(lattice, blocks.grid.mpp_x)
        if areas.min() > _LEAST_AREA:
            return Refined(Composite((spline, *transform.parts)), states, stiffness)
    return Refined(transform, states, 0.0)


def _states(blocks: Blocks) -> NDArray[np.uint8]:
    states = np.full(blocks.tried.shape, State.EMPTY, np.uint8)
    found = np.isfinite(blocks.offsets).all(axis=-1)
    states[blocks.tried] = State.FAILED
    states[found] = State.OUTLIER
    states[_agreeing(blocks.offsets)] = State.USED
    return states


def _agreeing(offsets: Floats) -> NDArray[np.bool_]:
    """Return which offsets lie near the median of those around them."""
    width = 2 * _AROUND + 1
    padded = np.pad(offsets, ((_AROUND, _AROUND), (_AROUND, _AROUND), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (width, width), axis=(0, 1))
    around = np.delete(windows.reshape(*offsets.shape, width**2), width**2 // 2, axis=-1)
    enough = np.isfinite(around[:, :, 0]).sum(axis=-1) >= _LEAST_NEIGHBOURS
    judged = enough & np.isfinite(offsets).all(axis=-1)
    if not judged.any():
        return np.zeros(judged.shape, dtype=np.bool_)
    apart = np.full(judged.shape, np.inf)
    apart[judged] = np.linalg.norm(offsets[judged] - np.nanmedian(around[judged], axis=-1), axis=-1)
    limit = max(_FAR * 1.4826 * float(np.median(apart[judged])), _NEAR_PX)
    return np.asarray(apart <= limit, dtype=np.bool_)


def _lattice(grid: Grid, step_um: float) -> Floats:
    """Return points that cover a grid, so many µm apart."""
    (x0, y0), (x1, y1) = grid.to_um([[0, 0], [grid.width - 1, grid.height - 1]])
    x, y = (np.linspace(low, high, math.ceil((high - low) / step_um) + 2) for low, high in ((x0, x1), (y0, y1)))
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _fitted(points: Floats, offsets: Floats, grid: Grid, spacing: float, stiffness: float) -> BSpline:
    """Return the B-spline over a grid whose displacements at points come near the offsets, all in µm."""
    origin = grid.to_um([[0, 0]])[0] - 2 * spacing
    columns, rows = (math.ceil(length / spacing) + 5 for length in grid.size_um)
    design = _design((points - origin) / spacing, (rows, columns))
    penalty = stiffness * _bending(rows, columns) + _RIDGE * sparse.identity(rows * columns)
    solved = splu((design.T @ design + penalty).tocsc()).solve(design.T @ offsets)
    return BSpline(origin, np.full(2, spacing), solved.T.reshape(2, rows, columns))


def _design(places: Floats, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Return each control point's weight, (N, rows * columns), at places ``(x, y)`` in control points' distances."""
    first = np.floor(places).astype(np.int64) - 1
    x, y = _cubic(places - first - 1).transpose(1, 0, 2)
    column, row = (first[:, axis, None] + np.arange(4) for axis in (0, 1))
    index = (row[:, :, None] * shape[1] + column[:, None, :]).reshape(len(places), 16)
    weights = (y[:, :, None] * x[:, None, :]).reshape(len(places), 16)
    starts = np.arange(0, 16 * len(places) + 1, 16)
    return sparse.csr_matrix((weights.ravel(), index.ravel(), starts), shape=(len(places), shape[0] * shape[1]))


def _cubic(t: Floats) -> Floats:
    """Return the four cubic B-spline weights, ``(..., 4)``, a share ``t`` of the way between the middle two."""
    return np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=-1
    ) / 6  # fmt: skip


def _bending(rows: int, columns: int) -> sparse.csr_matrix:
    """Return the penalty of second differences: along both axes, and twice the mixed one."""
    (one_y, two_y), (one_x, two_x) = (
        tuple(difference.T @ difference for difference in (_differences(n, 1), _differences(n, 2)))
        for n in (rows, columns)
    )
    y, x = sparse.identity(rows), sparse.identity(columns)
    return (sparse.kron(y, two_x) + 2 * sparse.kron(one_y, one_x) + sparse.kron(two_y, x)).tocsr()


def _differences(count: int, order: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.diff(np.eye(count), order, axis=0))
