"""Which slides a query matches, and where: looked up by cells, then laid on each other pixel by pixel."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from comir_batch.core.errors import ConfigError
from comir_batch.core.transform import Affine
from comir_batch.retrieval.cells import represented_mask
from comir_batch.retrieval.lookup import look_up
from comir_batch.retrieval.margins import times_as_high
from comir_batch.retrieval.place import compared_at, place, verified
from comir_batch.retrieval.shortlist import Searched, can_be_shortlisted, look_up_shortlisted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid, Region
    from comir_batch.retrieval.cells import Cells
    from comir_batch.retrieval.index import Index, IndexedSlide
    from comir_batch.retrieval.lookup import Hit
    from comir_batch.retrieval.place import Placed
    from comir_batch.retrieval.query_image import QueryImage

    AtSize = Callable[[float], QueryImage]

LOOKED_UP, VERIFIED = 30, 12
"""Places that are looked up, and how many of them are verified."""
LARGE = 2000
"""Patches above which a gallery is looked up by a shortlist, unless told otherwise: a second or so for all places."""
_ALIKE = 1.02  # times as large, at most, are the pixels of slides in which a query is looked up at one size
_PATCH = 128  # pixels of the working level: patches of 256 pixels, which overlap by half, one for each such square
LookUp: TypeAlias = Literal["auto", "all", "shortlist"]
"""How places are looked up."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """A place in a slide that a query may come from.

    Attributes
    ----------
    slide : IndexedSlide
        Which.
    transform : Affine
        Query µm to slide µm: a turn, perhaps a mirroring, and a shift.
    score : float
        How well the two agree, see `place.Placed`; of places that were not verified the cells' correlation.
    verified : bool
        Whether they were laid on each other pixel by pixel.
    """

    slide: IndexedSlide
    transform: Affine
    score: float
    verified: bool

    @property
    def angle(self) -> float:
        """Degrees from the query to the slide, after x is perhaps mirrored."""
        turn = self.transform.matrix @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        return math.degrees(math.atan2(turn[1, 0], turn[0, 0])) % 360

    @property
    def mirrored(self) -> bool:
        """Whether it mirrors."""
        return bool(np.linalg.det(self.transform.matrix) < 0)

    def middle(self, grid: Grid) -> NDArray[np.float64]:
        """Return where the middle of a query with such a grid lies, ``(x, y)`` in µm of the slide."""
        where: NDArray[np.float64] = self.transform.map(grid.corners_um().mean(axis=0)[None])[0]
        return where


class Finder:
    """Finds queries in the slides of an index; keeps their cells in memory.

    Parameters
    ----------
    index : Index
        Where to look.
    verified : int
        Places that are verified; 0 ranks by cells alone.
    look_up : {"auto", "all", "shortlist"}
        By default a shortlist in more than `LARGE` patches, of which small queries have none.
    """

    def __init__(self, index: Index, verified: int = VERIFIED, look_up: LookUp = "auto") -> None:
        self._index, self._verified, self._look_up = index, verified, look_up
        self._cells: dict[str, Cells] = {}
        self._loaded: dict[str, Searched] = {}

    def searched(self, modality: str) -> tuple[IndexedSlide, ...]:
        """Return the slides that a query of a modality is compared with: those of the others, else all.

        Raises
        ------
        ConfigError
            If the index has no slides.
        """
        slides = self._index.slides
        if not slides:
            raise ConfigError(f"the index {self._index.folder} has no slides; add some with comir-batch index")
        return tuple(slide for slide in slides if slide.modality != modality) or slides

    def chosen(self, image: QueryImage, slides: Sequence[IndexedSlide]) -> LookUp:
        """Return how a query is looked up in some slides: what was asked for, else what their number calls for."""
        if self._look_up != "auto":
            return self._look_up
        shortlisted = patches(slides) > LARGE and can_be_shortlisted(image.at(max(map(_mpp, slides))).query)
        return "shortlist" if shortlisted else "all"

    def places(self, image: QueryImage, slides: Sequence[IndexedSlide]) -> list[Match]:
        """Return the places in some slides that a query may come from: those that were verified first, best first.

        Raises
        ------
        SlideError
            If a shortlist was asked for, and the query is too small for one.
        """
        at = functools.cache(image.at)
        hits = self._looked_up(at, slides, self.chosen(image, slides))
        placed = verified(hits[: self._verified], lambda hit: self._laid(at, hit, slides[hit.slide]))
        return [
            *(_match(at, each, each.transform, slides, verified=True) for each in placed),
            *(_match(at, each, _rough(at, each, slides), slides, verified=False) for each in hits[self._verified :]),
        ]

    def _looked_up(self, at: AtSize, slides: Sequence[IndexedSlide], how: LookUp) -> list[Hit]:
        """Return the best hits, each looked up at the pixel size of its slide."""
        hits: list[Hit] = []
        for numbers in _alike(slides):
            query, some = at(_mpp(slides[numbers[0]])).query, [slides[number] for number in numbers]
            if how == "shortlist":
                found = look_up_shortlisted(query, [self._searched_in(slide) for slide in some], LOOKED_UP)
            else:
                found = look_up(query, [self._cells_of(slide) for slide in some], LOOKED_UP)
            hits += [replace(hit, slide=numbers[hit.slide]) for hit in found]
        return sorted(hits, key=lambda hit: -hit.score)[:LOOKED_UP]

    def _cells_of(self, slide: IndexedSlide) -> Cells:
        if slide.name not in self._cells:
            self._cells[slide.name] = self._index.cells(slide)
        return self._cells[slide.name]

    def _searched_in(self, slide: IndexedSlide) -> Searched:
        if slide.name not in self._loaded:
            self._loaded[slide.name] = Searched.of(self._index.cells(slide), self._index.signatures(slide))
        return self._loaded[slide.name]

    def _laid(self, at: AtSize, hit: Hit, slide: IndexedSlide) -> Placed | None:
        """Lay a query on a slide; scores are as of pixels of the model's size, so that those of all slides compare."""
        grid, mpp = slide.represented.grid, _mpp(slide)
        image = at(mpp)

        def read(region: Region) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            pixels = slide.represented.read(region)[0]
            return pixels, represented_mask(pixels)

        placed = place(image.query, hit, read, (grid.width, grid.height))
        if placed is None:
            return None
        extent = max(image.grid.size_um)
        share = compared_at(mpp, extent) / compared_at(self._index.model.card.mpp, extent)
        return placed._replace(score=placed.score * share)


def patches(slides: Sequence[IndexedSlide]) -> int:
    """Return how many patches of 256 pixels, one every 128, cover some slides."""
    grids = [slide.represented.grid for slide in slides]
    return sum(math.ceil(grid.width / _PATCH) * math.ceil(grid.height / _PATCH) for grid in grids)


def _mpp(slide: IndexedSlide) -> float:
    grid = slide.represented.grid
    return (grid.mpp_x + grid.mpp_y) / 2


def _alike(slides: Sequence[IndexedSlide]) -> list[list[int]]:
    """Return the numbers of slides whose pixel sizes are all but the same, together; that of the finest one first."""
    groups: list[list[int]] = []
    for number in sorted(range(len(slides)), key=lambda number: _mpp(slides[number])):
        if groups and _mpp(slides[number]) <= _ALIKE * _mpp(slides[groups[-1][0]]):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _rough(at: AtSize, hit: Hit, slides: Sequence[IndexedSlide]) -> Affine:
    """Return the transform of query pixels to slide pixels that a hit stands for."""
    height, width = at(_mpp(slides[hit.slide])).query.pixels.shape
    return Affine(hit.matrix, np.array([hit.x, hit.y]) - hit.matrix @ [(width - 1) / 2, (height - 1) / 2])


def _match(at: AtSize, found: Hit | Placed, pixels: Affine, slides: Sequence[IndexedSlide], *, verified: bool) -> Match:
    slide = slides[found.slide]
    return Match(slide, _in_um(pixels, at(_mpp(slide)).grid, slide.represented.grid), found.score, verified)


def _in_um(pixels: Affine, query: Grid, slide: Grid) -> Affine:
    """Return a transform of pixels as one of µm."""
    ends = slide.to_um(pixels.map(query.to_pixels([[0, 0], [1, 0], [0, 1]])))
    matrix = np.column_stack([ends[1] - ends[0], ends[2] - ends[0]])
    return Affine(matrix, ends[0])


def best_of_each(matches: Sequence[Match]) -> list[Match]:
    """Return the best place in each slide, in the order of the matches."""
    best: dict[str, Match] = {}
    for match in matches:
        best.setdefault(match.slide.name, match)
    return list(best.values())


def rivals(matches: Sequence[Match], match: Match) -> list[float]:
    """Return the scores of all other verified places, in whichever slide."""
    return [other.score for other in matches if other.verified and other is not match]


def margin(matches: Sequence[Match], match: Match | None = None) -> float:
    """Return the margin, see `margins.times_as_high`, of a match beside all others; by default of the best one."""
    best = match or next((each for each in matches if each.verified), None)
    return 1.0 if best is None else times_as_high(best.score, rivals(matches, best))
