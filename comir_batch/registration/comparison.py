"""How much one image of a view tells of the other where a transform lays them on each other."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.coarse import GreyLevels, shared_area
from comir_batch.registration.scores import information_nats, information_score, normal_nats

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.registration.images import View

    Values = NDArray[np.float32]
    Inside = NDArray[np.bool_]


LEAST_SAMPLES, LEAST_SHARE = 50, 0.2  # of the points: what must fall into the moving mask
_RANDOM, _SEED = 60, 1
_ROW = 1024  # cv2.remap takes points in rows, which it does not let grow beyond 32767


class Comparison:
    """Compares the pixels of a view's fixed mask with those of the moving image that transforms lay on them.

    Parameters
    ----------
    view : View
        Both images, of one pixel size.

    Attributes
    ----------
    points : (N, 2) float64
        Centres of the compared pixels, ``(x, y)`` in fixed µm.
    """

    def __init__(self, view: View) -> None:
        fixed, self._moving, self._metric = view.fixed, view.moving, view.metric
        self._area = shared_area(fixed, self._moving)
        y, x = np.nonzero(fixed.mask)
        self.points = fixed.grid.to_um(np.stack([x, y], axis=1))
        middle, reach = self.points.mean(axis=0), max(float(np.ptp(self.points)), 1.0)
        self._frame = middle + reach * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        away = (self.points - middle) / reach
        self._in_frame = _in_rows(np.vstack([away.T, np.ones(len(away))]))
        self._values = fixed.pixels[fixed.mask]
        self._planes = self._moving.mask.astype(np.float32), self._moving.pixels
        self._levels = GreyLevels.of(self._moving.pixels[self._moving.mask])
        levels = GreyLevels.of(self._values)
        self._labels = levels.label(self._values) * np.uint8(levels.count)

    def sampled(self, transform: Composite) -> tuple[Values, Inside]:
        """Return the moving image's values at the points, ``(N,)``, and which of them lie in its mask."""
        x, y = self._columns(transform).reshape(2, -1, _ROW)
        weight, values = (
            cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).ravel()[: len(self.points)]
            for plane in self._planes  # one by one: OpenCV takes longer for both in one image
        )
        return np.asarray(values / np.maximum(weight, 0.5)), np.asarray(weight > 0.5)

    def _columns(self, transform: Composite) -> NDArray[np.float32]:
        """Return where a transform lays the points, ``(2, P)`` pixels of the moving image, see `_in_rows`."""
        grid = self._moving.grid
        if not transform.is_affine:
            return _in_rows(grid.to_pixels(transform.map(self.points)).T)
        middle, right, down = grid.to_pixels(transform.map(self._frame))  # where three points go, all go: far quicker
        matrix = np.array([right - middle, down - middle, middle], dtype=np.float32)
        return np.asarray(matrix.T @ self._in_frame)

    def score(self, values: Values, inside: Inside) -> float:
        """Return the significance of sampled values inside: Fisher's transform of the correlation, or the information.

        See `registration.scores`; but a correlation counts every pixel as an independent sample.
        """
        if self._metric == "mi":
            return self._information(self._labels[inside], values[inside])
        fixed, moving = self._values[inside], values[inside]
        return math.atanh(min(max(_correlation(fixed, moving), -0.999), 0.999)) * math.sqrt(len(fixed))

    def scored(self, transform: Composite) -> float:
        """Return the score where a transform lays the images; NaN if too few points fall into the moving mask."""
        values, inside = self.sampled(transform)
        if np.count_nonzero(inside) < max(LEAST_SAMPLES, LEAST_SHARE * inside.size):
            return math.nan
        return self.score(values, inside)

    def likelihood(self, transform: Composite) -> float:
        """Return by about how many nats the images explain each other, where a transform lays them, better than chance.

        The log-likelihood ratio, from how far the score lies above those of alignments at random. These know how much
        of an image is alike everywhere, as slow changes of its light are; its correlation with itself does not tell
        that from structure. NaN if too few of the points fall into the moving mask.
        """
        return self._nats(self.scored(transform))

    def gain(self, before: Composite, after: Composite) -> float:
        """Return by how many nats one transform explains more than another, where both lay pixels on each other.

        See `likelihood`; 0 if the two have no pixel in common.
        """
        (values, inside), (values_after, inside_after) = self.sampled(before), self.sampled(after)
        both = inside & inside_after
        if not both.any():
            return 0.0
        return self._nats(self.score(values_after, both)) - self._nats(self.score(values, both))

    def _nats(self, score: float) -> float:
        """Return the log-likelihood ratio of a score: 0 for one that chance explains as well, NaN for NaN."""
        mean, spread = self._null
        standard = np.array((score - mean) / spread)
        return float(normal_nats(standard) if self._metric == "ncc" else information_nats(standard, self._levels.count))

    @cached_property
    def _null(self) -> tuple[float, float]:
        """Mean and standard deviation of the scores of alignments at random."""
        scores = [self.scored(turn) for turn in self._random()]
        known = np.array([score for score in scores if math.isfinite(score)])
        return (float(known.mean()), max(float(known.std()), 1e-9)) if len(known) > 1 else (0.0, 1.0)

    def _random(self) -> list[Composite]:
        """Return alignments of both tissues' middles, turned by any angle, every second one mirrored, and shifted."""
        generator = np.random.default_rng(_SEED)
        middle = self._moving.grid.to_um(np.argwhere(self._moving.mask)[:, ::-1]).mean(axis=0)
        angles = generator.uniform(0, 2 * math.pi, _RANDOM)
        shifts = generator.uniform(-0.2, 0.2, (_RANDOM, 2)) * np.ptp(self.points, axis=0).max()
        matrices = [
            np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) @ np.diag([(-1.0) ** n, 1.0])
            for n, a in enumerate(angles)
        ]
        here = self.points.mean(axis=0)
        return [
            Composite((Affine(matrix, middle + shift - matrix @ here),))
            for matrix, shift in zip(matrices, shifts, strict=True)
        ]

    def _information(self, labels: NDArray[np.uint8], moving: Values) -> float:
        levels = self._levels.count
        counts = np.bincount(labels + self._levels.label(moving), minlength=levels**2)
        joint = counts.reshape(levels, levels, 1).astype(np.float32)
        return float(information_score(joint, self._area)[0])


def _in_rows(coordinates: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``(K, N)`` coordinates as ``(K, P)``, with zeros up to whole rows of `_ROW` points."""
    count, points = coordinates.shape
    padded = np.zeros((count, -(-points // _ROW) * _ROW), np.float32)
    padded[:, :points] = coordinates
    return padded


def _correlation(fixed: Values, moving: Values) -> float:
    spread = float(fixed.std() * moving.std())
    return float(((fixed - fixed.mean()) * (moving - moving.mean())).mean()) / spread if spread else 0.0
