"""Registration by alpha-AMD: the mean distance between images as fuzzy sets, descended by stochastic gradients.

Grey levels are membership; cut by cut, a point is as far from the other image as the nearest point of at least its
level, and in the complements likewise (Lindblad and Sladoje, IEEE PAMI 2014). Öfverstedt, Lindblad and Sladoje (IEEE
TIP 2019) descend it for affine registration; settings are those of MultiRegEval (Lu et al., PLOS ONE 2022) for images
of about 300 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from comir_batch.bench.baselines import START_RADIANS
from comir_batch.core.transform import Affine, Composite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.registration.images import RegistrationImage

    Points = NDArray[np.float64]

_CUTS = 7
_SHARE = 0.01  # of the points, in each step
_MOMENTUM = 0.9
_STEEPEST = 1.0  # derivatives are clipped to it
_TURN_SCALE, _SHIFT_SCALE = 0.1, 5.0  # of steps: radians times the diagonal, and pixels
_SEED = 1000


class _Stage(NamedTuple):
    """A resolution: its pixel in those of the image, the blur in its pixels, steps, and their length at both ends."""

    factor: int
    sigma: float
    steps: int
    first: float
    last: float


_STAGES = (_Stage(4, 7.0, 900, 2.0, 2.0), _Stage(2, 3.0, 300, 2.0, 2.0), _Stage(1, 1.0, 60, 2.0, 0.2))


class _Rigid(NamedTuple):
    """A turn about the middles of both images and a shift, in radians and pixels of the full resolution."""

    turn: float
    x: float
    y: float

    @property
    def matrix(self) -> Points:
        cosine, sine = math.cos(self.turn), math.sin(self.turn)
        return np.array([[cosine, -sine], [sine, cosine]])

    @property
    def slope(self) -> Points:
        """The matrix's derivative by the turn."""
        return np.asarray(self.matrix @ [[0.0, -1.0], [1.0, 0.0]])

    def map(self, points: Points) -> Points:
        return np.asarray(points @ self.matrix.T + [self.x, self.y])

    def back(self, points: Points) -> Points:
        return np.asarray((points - [self.x, self.y]) @ self.matrix)


@dataclass(frozen=True, slots=True, eq=False)
class _FuzzySet:
    """An image of levels 0 to 7, and how far each of its pixels is from them.

    Attributes
    ----------
    points : (N, 2) float64
        Of the mask, ``(x, y)`` from the image's middle, in pixels of the full resolution.
    levels : (N,) int
        Theirs.
    distance : (8, Y, X) float64
        Of a point of each level that comes to lie on a pixel, in pixels of the full resolution.
    gradient : (2, 8, Y, X) float64
        Of the distance along x and y; zero for cuts that the pixel lies in.
    mask : (Y, X) bool
        Pixels that count.
    factor : int
        Full-resolution pixels in one of these.
    first : (2,) float64
        Where the first pixel lies, as points do.
    """

    points: Points
    levels: NDArray[np.int64]
    distance: NDArray[np.float64]
    gradient: NDArray[np.float64]
    mask: NDArray[np.bool_]
    factor: int
    first: Points

    @classmethod
    def of(cls, image: RegistrationImage, stage: _Stage) -> _FuzzySet:
        step = stage.factor
        mask = image.mask[step // 2 :: step, step // 2 :: step]
        pixels = np.where(image.mask, image.pixels, image.pixels[image.mask].mean())
        pixels = ndimage.gaussian_filter(pixels, stage.sigma)[step // 2 :: step, step // 2 :: step]
        low, high = pixels[mask].min(), pixels[mask].max()
        share = np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)
        levels = np.floor(_CUTS * share + 0.5).astype(np.int64)
        inside = [_distances(mask & (levels >= cut), step) for cut in range(1, _CUTS + 1)]
        outside = [_distances(mask & (levels <= _CUTS - cut), step) for cut in range(1, _CUTS + 1)]
        costs = _cumulated([d for d, _ in inside]) + _cumulated([d for d, _ in outside])[::-1]
        slopes = [
            _cumulated([g[axis] for _, g in inside]) + _cumulated([g[axis] for _, g in outside])[::-1]
            for axis in (1, 0)
        ]
        rows, columns = np.nonzero(mask)
        first = step // 2 - (np.array(image.grid.shape[::-1]) - 1) / 2
        points = np.column_stack([columns, rows]) * step + first
        return cls(points, levels[mask], costs, np.stack(slopes), mask, step, first)

    def at(self, planes: NDArray[np.float64], points: Points, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return ``(..., N)`` values of ``(..., 8, Y, X)`` planes at points by their levels; NaN off the mask."""
        size = np.array(self.mask.shape[::-1])
        indices = np.rint((points - self.first) / self.factor).astype(np.int64)
        within = np.all((indices >= 0) & (indices < size), axis=1)
        x, y = np.clip(indices, 0, size - 1).T
        return np.where(within & self.mask[y, x], planes[..., levels, y, x], np.nan)


def alpha_amd_rigid(
    fixed: RegistrationImage, moving: RegistrationImage, starts: Sequence[float] = START_RADIANS
) -> Composite | None:
    """Return the rigid transform with the least symmetric distance that is found from a few starts; None off the masks.

    Parameters
    ----------
    fixed, moving : RegistrationImage
        Alike, on square pixels of one size.
    starts : sequence of float
        Turns in radians about the images' middles.
    """
    stages = [(_FuzzySet.of(fixed, stage), _FuzzySet.of(moving, stage), stage) for stage in _STAGES]
    finest = stages[-1][:2]
    diagonal = math.hypot(*fixed.grid.shape)
    found: list[tuple[float, _Rigid]] = []
    for start in starts:
        rigid, generator = _Rigid(start, 0.0, 0.0), np.random.default_rng(_SEED)
        for first, second, stage in stages:
            rigid = _descended(rigid, (first, second), stage, diagonal, generator)
        distance = _symmetric(rigid, *finest)
        if math.isfinite(distance):
            found.append((distance, rigid))
    return _in_um(min(found)[1], fixed, moving) if found else None


def _descended(
    rigid: _Rigid, pair: tuple[_FuzzySet, _FuzzySet], stage: _Stage, diagonal: float, generator: np.random.Generator
) -> _Rigid:
    scale = np.array([_TURN_SCALE / diagonal, _SHIFT_SCALE, _SHIFT_SCALE])
    counts = [max(round(_SHARE * len(each.points)), 1) for each in pair]
    momentum = np.zeros(3)
    for length in np.linspace(stage.first, stage.last, stage.steps):
        samples = [generator.integers(len(each.points), size=count) for each, count in zip(pair, counts, strict=True)]
        slope = _slope(rigid, *pair, *samples)
        momentum = _MOMENTUM * momentum + (1 - _MOMENTUM) * np.clip(slope, -_STEEPEST, _STEEPEST)
        rigid = _Rigid(*(np.array(rigid) - length * scale * momentum))
    return rigid


def _slope(
    rigid: _Rigid, fixed: _FuzzySet, moving: _FuzzySet, of_fixed: NDArray[np.int64], of_moving: NDArray[np.int64]
) -> Points:
    """Return the derivatives of the symmetric distance of some points by turn and shift."""
    points, levels = fixed.points[of_fixed], fixed.levels[of_fixed]
    forward = moving.at(moving.gradient, rigid.map(points), levels)
    turned = np.sum(forward.T * (points @ rigid.slope.T), axis=1)
    ahead = np.vstack([turned, forward])
    points, levels = moving.points[of_moving], moving.levels[of_moving]
    backward = fixed.at(fixed.gradient, rigid.back(points), levels)
    turned = np.sum(backward.T * ((points - [rigid.x, rigid.y]) @ rigid.slope), axis=1)
    behind = np.vstack([turned, -rigid.matrix @ backward])
    return (_mean(ahead) + _mean(behind)) / 2


def _symmetric(rigid: _Rigid, fixed: _FuzzySet, moving: _FuzzySet) -> float:
    """Return the distance of all points, both ways; NaN where nothing overlaps."""
    ahead = moving.at(moving.distance, rigid.map(fixed.points), fixed.levels)
    behind = fixed.at(fixed.distance, rigid.back(moving.points), moving.levels)
    known = [way[np.isfinite(way)] for way in (ahead, behind)]
    return float(np.mean([way.mean() for way in known])) if all(map(len, known)) else math.nan


def _mean(values: NDArray[np.float64]) -> Points:
    """Return the mean of each row, of what lies on the mask; 0 where nothing does."""
    known = np.isfinite(values[-1])
    return values[:, known].mean(axis=1) if known.any() else np.zeros(len(values))


def _distances(cut: NDArray[np.bool_], step: int) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return how far each pixel is from a cut, at most the diagonal, and the gradient along y and x."""
    farthest = math.hypot(*cut.shape)
    if not cut.any():
        return np.full(cut.shape, farthest * step), [np.zeros(cut.shape)] * 2
    distance = ndimage.distance_transform_edt(~cut)
    return distance * step, [np.where(cut, 0, along) for along in np.gradient(distance)]


def _cumulated(cuts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over all cuts of those up to each level, from none to all."""
    planes = np.stack(cuts)
    return np.concatenate([np.zeros_like(planes[:1]), np.cumsum(planes, axis=0)]) / _CUTS


def _in_um(rigid: _Rigid, fixed: RegistrationImage, moving: RegistrationImage) -> Composite:
    middles = [image.grid.corners_um().mean(axis=0) for image in (fixed, moving)]
    shift = np.array([rigid.x, rigid.y]) * fixed.grid.mpp_x
    return Composite((Affine(rigid.matrix, middles[1] + shift - rigid.matrix @ middles[0]),))
