"""Where exactly a query lies: its representation laid on the slide's, at the pixels of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.core.transform import Affine
from comir_batch.registration.quick import refined_rigid

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from comir_batch.retrieval.lookup import Hit
    from comir_batch.retrieval.templates import Query

_MARGIN = 48  # pixels beyond the query, for it to be moved
_LARGEST = 1024  # pixels of the longer side at which it is compared


class Placed(NamedTuple):
    """A query laid on a slide.

    Attributes
    ----------
    transform : Affine
        Pixels ``(x, y)`` of the query to pixels of the slide's working level.
    score : float
        Fisher's transform of the correlation times the root of the pixels that overlap: higher is surer, but pixels are
        not independent, so it is no number of standard deviations.
    """

    transform: Affine
    score: float


def place(
    query: Query,
    hit: Hit,
    read: Callable[[Region], tuple[NDArray[np.float32], NDArray[np.bool_]]],
    size: tuple[int, int],
) -> Placed | None:
    """Lay a query on a slide near a hit, by maximising the correlation over turns and shifts.

    Parameters
    ----------
    query : Query
        What is looked for.
    hit : Hit
        Where to begin.
    read : callable
        Returns the ``(Y, X)`` representation of a region of the slide, and its mask.
    size : (int, int)
        ``(width, height)`` of the slide in pixels.

    Returns
    -------
    Placed or None
        None where too little of the two overlaps.
    """
    matrix = hit.matrix
    height, width = query.pixels.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    reach = math.ceil(np.abs(matrix @ np.diag([width / 2, height / 2])).sum(axis=1).max()) + _MARGIN
    region = _around(hit, reach).within(*size)
    if region is None:
        return None
    pixels, mask = read(region)
    corner = np.array([region.x0, region.y0])
    start = Affine(matrix, np.array([hit.x, hit.y]) - corner - matrix @ middle)
    coarsest = max(1.0, query.side / _LARGEST)
    found = refined_rigid((query.pixels, query.mask), (pixels, mask), start, coarsest)
    if found is None:
        return None
    transform, score = found
    return Placed(Affine(transform.matrix, transform.offset + corner), score)


def _around(hit: Hit, reach: int) -> Region:
    x, y = round(hit.x), round(hit.y)
    return Region(x - reach, y - reach, x + reach + 1, y + reach + 1)
