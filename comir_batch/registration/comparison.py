"""How much one image of a view tells of the other where a transform lays them on each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from comir_batch.registration.coarse import GreyLevels, shared_area
from comir_batch.registration.scores import information_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.transform import Composite
    from comir_batch.registration.images import View

    Values = NDArray[np.float32]
    Inside = NDArray[np.bool_]


LEAST_SAMPLES, LEAST_SHARE = 50, 0.2  # of the points: what must fall into the moving mask


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
        self._values = fixed.pixels[fixed.mask]
        self._levels = GreyLevels.of(self._values), GreyLevels.of(self._moving.pixels[self._moving.mask])

    def sampled(self, transform: Composite) -> tuple[Values, Inside]:
        """Return the moving image's values at the points, ``(N,)``, and which of them lie in its mask."""
        rows = self._moving.grid.to_pixels(transform.map(self.points))[:, ::-1].T
        weight, values = (
            ndimage.map_coordinates(plane, rows, order=1, mode="constant", prefilter=False)
            for plane in (self._moving.mask.astype(np.float32), self._moving.pixels)
        )
        return values / np.maximum(weight, 0.5), weight > 0.5

    def score(self, values: Values, inside: Inside) -> float:
        """Return the significance of sampled values inside: Fisher's transform of the correlation, or the information.

        See `registration.scores`; but a correlation counts every pixel as an independent sample.
        """
        fixed, moving = self._values[inside], values[inside]
        if self._metric == "mi":
            return self._information(fixed, moving)
        return math.atanh(min(max(_correlation(fixed, moving), -0.999), 0.999)) * math.sqrt(len(fixed))

    def likelihood(self, transform: Composite) -> float:
        """Return by how many nats the images explain each other where a transform lays them, against being unrelated.

        The log-likelihood ratio: independent samples times what each tells, which is the mutual information, or
        ``-log(1 - ncc^2) / 2`` (that of normal variables; Cover and Thomas, Elements of Information Theory, 8.5). NaN
        if too few of the points fall into the moving mask.
        """
        values, inside = self.sampled(transform)
        if np.count_nonzero(inside) < max(LEAST_SAMPLES, LEAST_SHARE * inside.size):
            return math.nan
        return self._nats(values, inside)

    def gain(self, before: Composite, after: Composite) -> float:
        """Return by how many nats one transform explains more than another, where both lay pixels on each other.

        See `likelihood`; 0 if the two have no pixel in common.
        """
        (values, inside), (values_after, inside_after) = self.sampled(before), self.sampled(after)
        both = inside & inside_after
        return self._nats(values_after, both) - self._nats(values, both) if both.any() else 0.0

    def _nats(self, values: Values, inside: Inside) -> float:
        samples = np.count_nonzero(inside) / self._area
        return samples * self._told(values[inside], self._values[inside], samples)

    def _told(self, moving: Values, fixed: Values, samples: float) -> float:
        if self._metric == "mi":
            return self._information(fixed, moving) / math.sqrt(samples)
        return -math.log1p(-(min(max(_correlation(fixed, moving), 0.0), 0.999) ** 2)) / 2

    def _information(self, fixed: Values, moving: Values) -> float:
        levels = self._levels[0].count
        labels = self._levels[0].label(fixed) * levels + self._levels[1].label(moving)
        joint = np.bincount(labels, minlength=levels**2).reshape(levels, levels, 1).astype(np.float32)
        return float(information_score(joint, self._area)[0])


def _correlation(fixed: Values, moving: Values) -> float:
    spread = float(fixed.std() * moving.std())
    return float(((fixed - fixed.mean()) * (moving - moving.mean())).mean()) / spread if spread else 0.0
