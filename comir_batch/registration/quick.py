"""A quick rigid registration of two small images that look alike: for judging representations, not for slides.

Angles in steps and every shift by masked correlation (`registration.scores`) at a coarse level; the best few are
refined between the pixels by maximising the masked correlation over angle and shift (Evangelidis and Psarakis, IEEE
PAMI 2008), and the one that correlates best at full size is the answer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine
from comir_batch.registration.coarse import coarsened
from comir_batch.registration.images import RegistrationImage
from comir_batch.registration.scores import Correlation, Transforms
from comir_batch.registration.turntable import Turntable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.registration.turntable import Peak

_STEP_DEG = 4.0
_SEARCH_PX = 3.0  # as coarse as large slides are searched: what agrees in fine detail alone is not found
_LEAST_OVERLAP = 0.4
_STARTS = 3
_REFINED = ((2.0, 8), (1.0, 4))  # pixel size and most steps of each level of the refinement
_CONVERGED_PX = 0.02


def quick_rigid(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    fixed_mask: NDArray[np.bool_],
    moving_mask: NDArray[np.bool_],
    max_angle_deg: float = 30.0,
) -> NDArray[np.float64] | None:
    """Register two images of one pixel size that correlate positively where they are aligned.

    Parameters
    ----------
    fixed, moving : (Y, X) float32
        Any scale.
    fixed_mask, moving_mask : (Y, X) bool
        Pixels that count.
    max_angle_deg : float
        Turns up to so many degrees either way are searched.

    Returns
    -------
    (2, 3) float64 or None
        Map of fixed pixels ``(x, y)`` to moving pixels; None where nothing overlaps enough or an image is blank.
    """
    if not (_varies(fixed, fixed_mask) and _varies(moving, moving_mask)):
        return None
    images = _image(fixed, fixed_mask), _image(moving, moving_mask)
    starts = _starts(images, max_angle_deg)
    for mpp, steps in _REFINED:
        fixed_level, moving_level = (coarsened(image, mpp) for image in images)
        refined = [_refined(_Pair(fixed_level, moving_level), start, steps) for start in starts]
        starts = [start for start in refined if math.isfinite(start.score)]
    if not starts:
        return None
    best = max(starts, key=lambda start: start.score).transform
    return np.column_stack([best.matrix, best.offset])


def refined_rigid(
    fixed: tuple[NDArray[np.float32], NDArray[np.bool_]],
    moving: tuple[NDArray[np.float32], NDArray[np.bool_]],
    start: Affine,
    finest: float = 1.0,
) -> tuple[Affine, float] | None:
    """Climb from a start that is a few pixels and degrees off, at coarse, then at finer levels.

    Parameters
    ----------
    fixed, moving : ((Y, X) float32, (Y, X) bool)
        Pixels and masks, of one pixel size.
    start : Affine
        Fixed pixels ``(x, y)`` to moving pixels: a turn, perhaps a mirroring, and a shift.
    finest : float
        Pixel size of the last level, in pixels.

    Returns
    -------
    (Affine, float) or None
        Fixed pixels to moving pixels, and how significant the correlation is at the last level:
        ``atanh(ncc) * sqrt(n)`` for ``n`` of its pixels; None where too little overlaps or an image is blank.
    """
    if not (_varies(*fixed) and _varies(*moving)):
        return None
    images, best = (_image(*fixed), _image(*moving)), _Start(start, -math.inf)
    for mpp, steps in ((4.0, 8), *_REFINED):
        levels = [coarsened(image, mpp * finest) for image in images]
        best = _refined(_Pair(*levels), best, steps)
        if not math.isfinite(best.score):
            return None
    return best.transform, best.score


def _varies(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> bool:
    return bool(mask.any()) and float(np.ptp(pixels[mask])) > 0


def _image(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> RegistrationImage:
    height, width = pixels.shape
    return RegistrationImage(pixels, mask, Grid(width, height, 1.0, 1.0))  # pixels stand for micrometres


class _Start(NamedTuple):
    transform: Affine
    score: float


def _starts(images: tuple[RegistrationImage, RegistrationImage], max_angle_deg: float) -> list[_Start]:
    """Return the best few angles that are not neighbours of a better one, each with its best shift."""
    fixed, moving = (coarsened(image, _SEARCH_PX) for image in images)
    table = Turntable(moving)
    least = _LEAST_OVERLAP * min(np.count_nonzero(fixed.mask), np.count_nonzero(moving.mask))
    scorer = Correlation(fixed, moving, Transforms(table.transform_shape(fixed.mask, least)), least)
    steps = math.ceil(max_angle_deg / _STEP_DEG)
    peaks = [table.best(scorer, step * _STEP_DEG) for step in range(-steps, steps + 1)]
    return [_Start(table.transform(peak, fixed.grid), peak.score) for peak in _highest(peaks)]


def _highest(peaks: list[Peak]) -> list[Peak]:
    chosen: list[Peak] = []
    for peak in sorted(peaks, key=lambda peak: -peak.score):
        apart = all(abs(peak.angle - other.angle) > _STEP_DEG for other in chosen)
        if math.isfinite(peak.score) and apart and len(chosen) < _STARTS:
            chosen.append(peak)
    return chosen


def _refined(pair: _Pair, start: _Start, steps: int) -> _Start:
    best, transform = _Start(start.transform, -math.inf), start.transform
    for _ in range(steps):
        score, turn, shift = pair.ascent(transform)
        if score > best.score:
            best = _Start(transform, score)
        if not math.isfinite(score) or pair.reach * abs(turn) + math.hypot(*shift) < _CONVERGED_PX:
            break
        transform = _moved(transform, pair.centre, turn, shift)
    return best


def _moved(transform: Affine, centre: NDArray[np.float64], turn: float, shift: NDArray[np.float64]) -> Affine:
    """Return the transform turned about where it lays a point, and shifted."""
    there = transform.map(centre)
    rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    return Affine.about(rotation, there, shift).after(transform)


class _Pair:
    """Two images of one pixel size, compared where a transform lays them on each other."""

    def __init__(self, fixed: RegistrationImage, moving: RegistrationImage) -> None:
        self._fixed, self._grid = fixed, moving.grid
        down, right = np.gradient(moving.pixels) / np.float32(moving.grid.mpp_x)
        # The slope at the mask's border is that of the zeros beyond.
        inner = cv2.erode(moving.mask.astype(np.uint8), np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        self._planes = np.stack([moving.pixels, right, down, inner], axis=-1).astype(np.float32)
        self._least = max(_LEAST_OVERLAP * min(np.count_nonzero(fixed.mask), np.count_nonzero(inner)), 16)
        self.centre = fixed.grid.corners_um().mean(axis=0)
        self.reach = math.hypot(*fixed.grid.size_um) / 2
        y, x = np.indices(fixed.grid.shape, dtype=np.float32)
        self._away = (fixed.grid.to_um(np.stack([x, y], axis=-1)) - self.centre).astype(np.float32)

    def ascent(self, transform: Affine) -> tuple[float, float, NDArray[np.float64]]:
        """Return how significant the correlation is, and the turn in radians and the shift that raise it.

        Significance is ``atanh(ncc) * sqrt(n)``, -inf where too little overlaps.
        """
        values, right, down, inner = self._laid(transform)
        inside = self._fixed.mask & (inner > 0.99)
        count = np.count_nonzero(inside)
        if count < self._least:
            return -math.inf, 0.0, np.zeros(2)
        x, y = transform.matrix.astype(np.float32) @ self._away[inside].T
        right, down = right[inside], down[inside]
        slopes = np.stack([x * down - y * right, right, down])
        ncc, (turn, *shift) = _correlation_ascent(self._fixed.pixels[inside], values[inside], slopes)
        return math.atanh(min(max(ncc, -0.999), 0.999)) * math.sqrt(count), turn, np.array(shift)

    def _laid(self, transform: Affine) -> NDArray[np.float32]:
        """Return the moving image, its slopes along x and y, and its mask, on the fixed grid."""
        ends = self._grid.to_pixels(transform.map(self._fixed.grid.to_um([[0, 0], [1, 0], [0, 1]])))
        matrix = np.column_stack([ends[1] - ends[0], ends[2] - ends[0], ends[0]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        laid = cv2.warpAffine(self._planes, matrix, self._fixed.pixels.shape[::-1], flags=flags)
        return np.moveaxis(np.asarray(laid, dtype=np.float32), -1, 0)


def _correlation_ascent(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], slopes: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64]]:
    """Return the correlation of ``(N,)`` values and the step of the parameters, whose ``(3, N)`` slopes these are."""
    f, m, s = (values - values.mean(axis=-1, keepdims=True) for values in (fixed, moving, slopes))
    products = np.array([f, m, *s], dtype=np.float32) @ np.array([f, m, *s], dtype=np.float32).T
    (ff, fm, *fs), (_, mm, *ms), *_ = products.astype(np.float64)
    ncc = fm / math.sqrt(ff * mm) if ff * mm > 0 else 0.0
    try:
        to_fixed, to_moving = np.linalg.solve(products[2:, 2:].astype(np.float64), np.array([fs, ms]).T).T
    except np.linalg.LinAlgError:  # no slope: nothing to climb
        return ncc, np.zeros(3)
    numerator, denominator = mm - np.dot(ms, to_moving), fm - np.dot(fs, to_moving)
    if denominator <= 0:  # farther from the peak than a linear step can tell
        return ncc, np.zeros(3)
    return ncc, numerator / denominator * to_fixed - to_moving
