"""Where exactly a query lies: its representation laid on the slide's, at the pixels of both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.core.transform import Affine
from comir_batch.registration.quick import refined_rigid
from comir_batch.retrieval.lookup import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from comir_batch.retrieval.lookup import Hit
    from comir_batch.retrieval.templates import Query

_MARGIN = 48  # pixels beyond the query, for it to be moved
_LARGEST = 1024  # pixels of the longer side at which it is compared
_ONE_PLACE = 8.0  # pixels between middles that are one place


class Placed(NamedTuple):
    """A query laid on a slide.

    Attributes
    ----------
    slide : int
        Number of the slide.
    x, y : float
        Where the query's middle lies, in pixels of the slide's working level.
    score : float
        Fisher's transform of the correlation times the root of the pixels that overlap: higher is surer, but pixels are
        not independent, so it is no number of standard deviations.
    transform : Affine
        Pixels ``(x, y)`` of the query to pixels of the slide's working level.
    """

    slide: int
    x: float
    y: float
    score: float
    transform: Affine


def verified(hits: Sequence[Hit], lay: Callable[[Hit], Placed | None]) -> list[Placed]:
    """Return where a query comes to lie from some hits, best first, and each place once.

    Hits that are cells apart can climb to one place, which is no rival of itself.

    Parameters
    ----------
    hits : sequence of Hit
        Where to begin.
    lay : callable
        Lays the query near a hit, see `place`.
    """
    laid = [placed for hit in hits if (placed := lay(hit)) is not None]
    return distinct(laid, _ONE_PLACE, len(laid))


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
        What is looked for, at the slide's pixel size.
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
    transform, score = Affine(found[0].matrix, found[0].offset + corner), found[1]
    x, y = transform.map(middle).tolist()
    return Placed(hit.slide, x, y, score, transform)


def compared_at(mpp: float, extent_um: float) -> float:
    """Return the µm of the pixels at which a query of such a longer side is compared, on a slide of such pixels."""
    return max(mpp, extent_um / _LARGEST)


def _around(hit: Hit, reach: int) -> Region:
    x, y = round(hit.x), round(hit.y)
    return Region(x - reach, y - reach, x + reach + 1, y + reach + 1)
