"""Block matching: where the moving image, as a transform lays it, fits each block of the fixed image best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from comir_batch.core.geometry import Grid
from comir_batch.registration.images import RegistrationImage
from comir_batch.registration.scores import Correlation, Information, Transforms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Laid = tuple[NDArray[np.float32], NDArray[np.bool_]]

_LEAST_SHARE = 0.5  # of a block that must be tissue, and of that what must lie on the other's tissue
_CLEAR_NATS = 1.0  # by which the best shift must be likelier than any that is not near it


def offsets(fixed: Laid, moving: Laid, metric: Literal["ncc", "mi"], side: int, reach: int) -> NDArray[np.float64]:
    """Return where the blocks of a regular grid fit the moving image best, from where they lie.

    The best of all shifts of whole pixels, and between them by a parabola. A shift is clear if it explains the block by
    a nat more than any that is farther from it than half of `reach`. A wrong alignment has a clear shift by chance in
    one or two blocks of a hundred, which is what `quality.points.TileError` allows for.

    Parameters
    ----------
    fixed, moving : ((Y, X) float32, (Y, X) bool)
        Pixels and tissue on one grid: the moving image as a transform lays it there.
    metric : {"ncc", "mi"}
        What makes them similar.
    side : int
        Of the blocks, in pixels; an incomplete last row or column is left out.
    reach : int
        How many pixels away a block is looked for, along each axis.

    Returns
    -------
    (Y // side, X // side, 2) float64
        Pixels, ``(x, y)``; NaN where less than half of a block is tissue or no shift is clear.
    """
    return offsets_within(fixed, (np.pad(moving[0], reach), np.pad(moving[1], reach)), metric, side, reach)


def offsets_within(
    fixed: Laid, around: Laid, metric: Literal["ncc", "mi"], side: int, reach: int
) -> NDArray[np.float64]:
    """Return what `offsets` does, where the moving image reaches beyond the fixed one by `reach` on all sides."""
    counted = counted_blocks(fixed[1], side)
    pixels, mask = around
    transforms = Transforms((cv2.getOptimalDFTSize(side + 2 * reach),) * 2)
    found = np.full((*counted.shape, 2), np.nan)
    for row, column in np.argwhere(counted):
        y, x = row * side, column * side
        here, there = np.s_[y : y + side, x : x + side], np.s_[y : y + side + 2 * reach, x : x + side + 2 * reach]
        if mask[there].any():
            block = _image(fixed[0][here], fixed[1][here])
            found[row, column] = _offset(_nats(block, _image(pixels[there], mask[there]), metric, transforms, reach))
    return found


def count_blocks(mask: NDArray[np.bool_], side: int) -> int:
    """Return how many blocks of the grid are at least half tissue: those that `offsets` looks for."""
    return int(np.count_nonzero(counted_blocks(mask, side)))


def counted_blocks(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return which blocks of the grid, ``(Y // side, X // side)``, are at least half tissue."""
    rows, columns = (length // side for length in mask.shape)
    tissue = mask[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3))
    return np.asarray(tissue >= _LEAST_SHARE)


def _image(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> RegistrationImage:
    height, width = pixels.shape
    return RegistrationImage(pixels, mask, Grid(width, height, 1.0, 1.0))


def _nats(
    block: RegistrationImage, around: RegistrationImage, metric: str, transforms: Transforms, reach: int
) -> NDArray[np.float32]:
    """Return how likely each shift is, ``(2 reach + 1, 2 reach + 1)``; no shift is in the middle."""
    least = _LEAST_SHARE * np.count_nonzero(block.mask)
    scorer = (Correlation if metric == "ncc" else Information)(block, around, transforms, least)
    scores = scorer.scores(around.pixels, around.mask, scorer.overlap(around.mask))
    return scorer.nats(scores[: 2 * reach + 1, : 2 * reach + 1])


def _offset(nats: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the likeliest shift; NaN if it is not clear, or lies at the rim, so that a better one may lie beyond."""
    reach = len(nats) // 2
    y, x = (int(index) for index in np.unravel_index(int(nats.argmax()), nats.shape))
    rows, columns = np.ogrid[: len(nats), : len(nats)]
    rival = float(nats[np.hypot(rows - y, columns - x) > reach / 2].max())
    inside = 0 < y < 2 * reach and 0 < x < 2 * reach
    if not (inside and math.isfinite(rival) and nats[y, x] - rival > _CLEAR_NATS):
        return np.full(2, np.nan)
    across, down = nats[y, x - 1 : x + 2], nats[y - 1 : y + 2, x]
    return np.array([x - reach + _vertex(across), y - reach + _vertex(down)])


def _vertex(three: NDArray[np.float32]) -> float:
    """Return where a parabola through three equidistant values, the middle one highest, is highest."""
    left, middle, right = (float(value) for value in three)
    bend = left - 2 * middle + right
    return (left - right) / (2 * bend) if math.isfinite(bend) and bend < 0 else 0.0
