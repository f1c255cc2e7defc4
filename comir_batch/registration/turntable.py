"""The moving image at any angle, and the best shift of it there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from comir_batch.core.transform import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.registration.images import RegistrationImage
    from comir_batch.registration.scores import Scorer


_TWOS = 4


class Peak(NamedTuple):
    """The best shift at one angle.

    Attributes
    ----------
    score : float
        -inf where no shift overlaps enough.
    shift : (int, int)
        Of the fixed image's first pixel on the canvas, ``(x, y)`` in pixels.
    angle : float
        Degrees.
    mirrored : bool
        Whether x is mirrored before the rotation.
    """

    score: float
    shift: tuple[int, int]
    angle: float
    mirrored: bool


class Turntable:
    """The moving image, rotated about its centre on a square canvas that holds it at every angle.

    Parameters
    ----------
    moving : RegistrationImage
        On square pixels of the fixed image's size.
    """

    def __init__(self, moving: RegistrationImage) -> None:
        self._pixels, self._mask, self._grid = moving.pixels, moving.mask.astype(np.float32), moving.grid
        self.side = math.ceil(math.hypot(*moving.grid.shape)) + 2
        self._middle = (self.side - 1) / 2

    def transform_shape(self, fixed: NDArray[np.bool_], least: float) -> tuple[int, int]:
        """Return the shape of an FFT in which no shift with an overlap of `least` pixels is mixed up with another.

        Shifts wrap around where fewer rows (columns) overlap than those that it falls short of the two images' sum; in
        so few there are less than `least` pixels of the fixed mask.
        """
        spared = (math.ceil(least / fixed.sum(axis=1 - axis).max()) - 1 for axis in (0, 1))
        sides = zip(fixed.shape, spared, strict=True)
        rows, columns = (_fast_size(side + self.side - 1 - max(spare, 0)) for side, spare in sides)
        return rows, columns

    def best(self, scorer: Scorer, angle: float, *, mirrored: bool = False) -> Peak:
        """Return the shift with the highest score at an angle in degrees."""
        pixels, mask = self.turned(angle, mirrored=mirrored)
        return self.peak(scorer.scores(pixels, mask, scorer.overlap(mask)), angle, mirrored=mirrored)

    def peak(self, scores: NDArray[np.float32], angle: float, *, mirrored: bool) -> Peak:
        """Return the highest of the scores of all shifts at an angle."""
        y, x = np.unravel_index(int(scores.argmax()), scores.shape)
        shift = self._signed(int(x), scores.shape[1]), self._signed(int(y), scores.shape[0])
        return Peak(float(scores[y, x]), shift, float(angle), mirrored)

    def peak_near(
        self, scores: NDArray[np.float32], angle: float, shift: tuple[int, int], reach: int, *, mirrored: bool
    ) -> Peak:
        """Return the highest of the scores of shifts within `reach` pixels of one along both axes."""
        steps = np.arange(-reach, reach + 1)
        columns, rows = ((at + steps) % size for at, size in zip(shift, scores.shape[::-1], strict=True))
        window = scores[np.ix_(rows, columns)]
        y, x = np.unravel_index(int(window.argmax()), window.shape)
        return Peak(float(window[y, x]), (shift[0] + int(steps[x]), shift[1] + int(steps[y])), float(angle), mirrored)

    def shift(self, transform: Affine, fixed: Grid) -> tuple[int, int]:
        """Return the nearest shift of a peak whose transform it is, see `transform`."""
        corners, first = self._grid.corners_um(), transform.map(fixed.to_um([[0, 0]]))[0]
        from_middle = np.linalg.solve(transform.matrix, first - corners.mean(axis=0)) / self._grid.mpp_x
        x, y = np.rint(from_middle + self._middle).astype(int).tolist()
        return x, y

    def transform(self, peak: Peak, fixed: Grid) -> Affine:
        """Return a peak's transform, fixed µm to moving µm; canvas and fixed grid have one pixel size."""
        matrix, mpp = _turn(peak.angle, mirrored=peak.mirrored), self._grid.mpp_x
        corners = self._grid.corners_um()
        from_middle = np.array(peak.shift) - self._middle
        return Affine(matrix, corners.mean(axis=0) + matrix @ (from_middle * mpp - fixed.to_um([[0, 0]])[0]))

    def turned(self, angle: float, *, mirrored: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the image at an angle in degrees, and its mask, both ``(side, side)``."""
        matrix = _turn(angle, mirrored=mirrored)
        centre = np.array([self._grid.width - 1, self._grid.height - 1]) / 2
        to_moving = np.column_stack([matrix, centre - matrix @ [self._middle, self._middle]])
        size, flags = (self.side, self.side), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels, mask = (cv2.warpAffine(plane, to_moving, size, flags=flags) for plane in (self._pixels, self._mask))
        inside = mask > 0.5
        return np.where(inside, pixels / np.maximum(mask, 0.5), 0).astype(np.float32), inside

    def _signed(self, index: int, size: int) -> int:
        """Undo the wrap-around: shifts run from ``-(fixed side - 1)`` to ``side - 1``."""
        return index if index < self.side else index - size


def _fast_size(least: int) -> int:
    """Return a size whose FFT is quick: one with many factors of two, and few of three and five."""
    return _TWOS * int(cv2.getOptimalDFTSize(-(-least // _TWOS)))


def _turn(angle: float, *, mirrored: bool) -> NDArray[np.float64]:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
