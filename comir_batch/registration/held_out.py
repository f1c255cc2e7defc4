"""Tiles that no fit sees, and how significant the similarity of an alignment is on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.comparison import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import View

TILE = 48  # side of a held-out tile, in pixels of the fixed grid
_LEAST_TILE_SIDE = 4
_WRONG = 60
_LEAST_WRONG = 10


def held_out_tiles(mask: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.bool_]:
    """Return ``(Y, X)`` pixels of square tiles that are about ``share`` of those with tissue.

    They come from every second row and column of tiles as long as there are enough, so that what is left out has fitted
    tissue on all sides.

    Raises
    ------
    RegistrationError
        If there is too little tissue to leave any of it out.
    """
    rows, columns = (-(-side // TILE) for side in mask.shape)
    padded = np.zeros((rows * TILE, columns * TILE), dtype=bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    filled = padded.reshape(rows, TILE, columns, TILE).mean(axis=(1, 3)) >= 0.5
    y, x = np.nonzero(filled)
    count = round(share * len(y))
    if not count:
        raise RegistrationError(
            f"the tissue fills {len(y)} tiles of {TILE} x {TILE} pixels of the working level, too few to judge by. "
            "Register a larger piece, or at a smaller pixel size (chunk.mpp)"
        )
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(y)), (y % 2) * 2 + x % 2))[:count]
    chosen = np.zeros((rows, columns), dtype=bool)
    chosen[y[order], x[order]] = True
    pixels: NDArray[np.bool_] = chosen.repeat(TILE, axis=0).repeat(TILE, axis=1)
    return pixels[: mask.shape[0], : mask.shape[1]] & mask


class HeldOut:
    """Judges alignments by one view's similarity on held-out tiles, at the coarse level of the search.

    Parameters
    ----------
    view : View
        Both images, with all of their masks.
    tiles : (Y, X) bool
        Held-out pixels of the fixed grid.
    config : RegisterConfig
        Sizes and the seed of the wrong alignments.
    """

    def __init__(self, view: View, tiles: NDArray[np.bool_], config: RegisterConfig) -> None:
        searched = common_mpp(view.fixed, view.moving, config.search_side)
        # Finer than the search where the search is so coarse that a tile would vanish between its pixels.
        grid = view.fixed.grid
        mpp = min(searched, TILE / _LEAST_TILE_SIDE * min(grid.mpp_x, grid.mpp_y))
        fixed, moving = coarsened(view.fixed.masked(tiles), mpp), coarsened(view.moving, mpp)
        self._comparison = Comparison(replace(view, fixed=fixed, moving=moving))
        self._seed, self._extent = config.seed, searched * config.search_side

    def score(self, transform: Composite) -> float:
        """Return the view's similarity over the held-out pixels that fall into the moving mask; NaN if too few do."""
        return self._comparison.scored(transform)

    def significance(self, transform: Composite) -> float:
        """Return by how many standard deviations an alignment scores above wrong ones made from it; NaN if unknown."""
        score = self.score(transform)
        scores = [self.score(transform.then(turn)) for turn in self._wrong(transform)]
        if np.isfinite(scores).sum() < _LEAST_WRONG:  # a turned strip leaves the tissue; a shifted one stays on it
            scores += [self.score(Composite((shift, *transform.parts))) for shift in self._shifts()]
        wrong = np.array([each for each in scores if math.isfinite(each)])
        if len(wrong) < _LEAST_WRONG or not math.isfinite(score):
            return math.nan
        return float((score - wrong.mean()) / max(wrong.std(ddof=1), 1e-9))

    def _wrong(self, transform: Composite) -> Sequence[Affine]:
        """Return turns by 20 to 340 degrees about the tissue's centre, with shifts of up to a fifth of its extent."""
        generator = np.random.default_rng(self._seed)
        centre = transform.map(self._comparison.points).mean(axis=0)
        angles = np.radians(generator.uniform(20, 340, _WRONG))
        shifts = generator.uniform(-0.2, 0.2, (_WRONG, 2)) * self._extent
        return [
            Affine.about([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], centre, shift)
            for a, shift in zip(angles, shifts, strict=True)
        ]

    def _shifts(self) -> Sequence[Affine]:
        """Shifts of the fixed points by a tenth to four tenths of their own extent along each axis."""
        generator = np.random.default_rng(self._seed)
        share = generator.uniform(0.1, 0.4, (_WRONG, 2)) * generator.choice([-1.0, 1.0], (_WRONG, 2))
        return [
            Affine(np.array([[1.0, 0.0], [0.0, 1.0]]), shift)
            for shift in share * np.ptp(self._comparison.points, axis=0)
        ]
