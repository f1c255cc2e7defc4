"""Ways to find a crop of one modality among fields of the other: each a row of the ablation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from comir_batch.bench.visual_words import DenseSift, Ranker, SiftKeypoints, evened
from comir_batch.representation.imagenet import ImageNetFeatures
from comir_batch.retrieval.cells import Cells
from comir_batch.retrieval.find import LOOKED_UP, VERIFIED
from comir_batch.retrieval.lookup import look_up
from comir_batch.retrieval.place import place, verified
from comir_batch.retrieval.shortlist import Searched, can_be_shortlisted, look_up_shortlisted, shortlist
from comir_batch.retrieval.signatures import signatures_of
from comir_batch.retrieval.templates import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.retrieval.lookup import Hit
    from comir_batch.retrieval.place import Placed

    Image = NDArray[np.float32]

_RERANKED, _NEW_WORDS = 30, 512


class Found(NamedTuple):
    """What a method answers.

    Attributes
    ----------
    order : list of int
        Numbers of the fields, best first.
    middle : (float, float) or None
        Where the query's middle lies in the first of them, pixels ``(x, y)``; None of methods that do not tell.
    """

    order: list[int]
    middle: tuple[float, float] | None = None


class Method(Protocol):
    """Finds queries among fields that it has seen before."""

    def find(self, query: Image, gallery: Sequence[int]) -> Found | None:
        """Rank the fields of these numbers; None if a query of its size cannot be looked for so."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Visual words."""

    ranker: Ranker

    def find(self, query: Image, gallery: Sequence[int]) -> Found:
        """See `Method`."""
        kept = set(gallery)
        return Found([number for number in self.ranker.rank(query).tolist() if number in kept])


@dataclass(frozen=True, slots=True, eq=False)
class Reranked:
    """Visual words, and the first thirty fields once more, by words of their own patches as large as the query."""

    fields: Sequence[Image]
    words: Words

    def find(self, query: Image, gallery: Sequence[int]) -> Found:
        """See `Method`."""
        order = self.words.find(query, gallery).order
        first = order[:_RERANKED]
        cut = [(number, patch) for number in first for patch in patches(self.fields[number], query.shape)]
        if len(cut) < 2:
            return Found(order)
        ranker = Ranker([patch for _, patch in cut], DenseSift(), _NEW_WORDS)
        return Found(_in_order([*(cut[k][0] for k in ranker.rank(query).tolist()), *order]))


def patches(field: Image, shape: tuple[int, ...]) -> Iterator[Image]:
    """Yield the patches of a shape that cover a field, as few as do, evenly spread from border to border."""
    height, width = (min(side, whole) for side, whole in zip(shape, field.shape, strict=True))
    rows, columns = (math.ceil(whole / side) for whole, side in zip(field.shape, (height, width), strict=True))
    for top in np.linspace(0, field.shape[0] - height, rows).round().astype(int):
        for left in np.linspace(0, field.shape[1] - width, columns).round().astype(int):
            yield field[top : top + height, left : left + width]


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Cosine of ImageNet features, with the best of a query's quarter turns and mirrorings."""

    network: ImageNetFeatures
    fields: NDArray[np.float32]

    @classmethod
    def of(cls, fields: Sequence[Image]) -> Learned:
        """Describe the fields."""
        network = ImageNetFeatures()
        return cls(network, np.stack([network.describe(_grey(field)) for field in fields]))

    def find(self, query: Image, gallery: Sequence[int]) -> Found:
        """See `Method`."""
        turned = (np.rot90(side, quarters) for side in (query, query[:, ::-1]) for quarters in range(4))
        seen = np.stack([self.network.describe(_grey(np.ascontiguousarray(each))) for each in turned])
        cosines: Image = (self.fields[list(gallery)] @ seen.T).max(axis=1)
        return Found([gallery[k] for k in np.argsort(-cosines, kind="stable")])


def _grey(image: Image) -> Image:
    return np.asarray(evened(image, np.ones(image.shape, bool)) / 255, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class All:
    """Cells at all places."""

    cells: Sequence[Cells]

    def hits(self, query: Query, gallery: Sequence[int]) -> list[Hit]:
        """Return the best places; their slides are numbers in the gallery."""
        return look_up(query, [self.cells[k] for k in gallery], LOOKED_UP)

    def find(self, query: Image, gallery: Sequence[int]) -> Found:
        """See `Method`."""
        return _found(self.hits(_whole(query), gallery), gallery)


@dataclass(frozen=True, slots=True, eq=False)
class Signatures:
    """Signatures alone."""

    searched: Sequence[Searched]

    def find(self, query: Image, gallery: Sequence[int]) -> Found | None:
        """See `Method`."""
        if not can_be_shortlisted(_whole(query)):
            return None
        seen = [self.searched[k].signatures for k in gallery]
        return _found(shortlist(_whole(query), seen, 4 * len(gallery)), gallery)


@dataclass(frozen=True, slots=True, eq=False)
class Shortlisted:
    """Cells at the places on a shortlist."""

    searched: Sequence[Searched]

    def hits(self, query: Query, gallery: Sequence[int]) -> list[Hit] | None:
        """Return the best places, or None for small queries."""
        if not can_be_shortlisted(query):
            return None
        return look_up_shortlisted(query, [self.searched[k] for k in gallery], LOOKED_UP)

    def find(self, query: Image, gallery: Sequence[int]) -> Found | None:
        """See `Method`."""
        hits = self.hits(_whole(query), gallery)
        return None if hits is None else _found(hits, gallery)


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """The best places of a look-up laid on the fields pixel by pixel."""

    fields: Sequence[Image]
    looked_up: All | Shortlisted

    def find(self, query: Image, gallery: Sequence[int]) -> Found | None:
        """See `Method`."""
        seen = _whole(query)
        hits = self.looked_up.hits(seen, gallery)
        if hits is None:
            return None
        sure = verified(hits[:VERIFIED], lambda hit: self._placed(seen, hit, gallery))
        slides = [*(each.slide for each in sure), *(hit.slide for hit in hits[VERIFIED:])]
        order = _in_order(gallery[slide] for slide in slides)
        return Found(order, (sure[0].x, sure[0].y) if sure else None)

    def _placed(self, query: Query, hit: Hit, gallery: Sequence[int]) -> Placed | None:
        image = self.fields[gallery[hit.slide]]

        def read(region: Region) -> tuple[Image, NDArray[np.bool_]]:
            return image[region.slices], np.ones(region.shape, bool)

        return place(query, hit, read, (image.shape[1], image.shape[0]))


class _Parts:
    """What methods of one kind of images share, made when the first asks for it."""

    def __init__(self, fields: Sequence[Image]) -> None:
        self.fields = fields

    @cached_property
    def words(self) -> Words:
        return Words(Ranker(self.fields, DenseSift()))

    @cached_property
    def everywhere(self) -> All:
        return All([_cells(field) for field in self.fields])

    @cached_property
    def searched(self) -> list[Searched]:
        cells = self.everywhere.cells
        return [Searched.of(each, signatures_of(each)) for each in cells]


_KINDS: Mapping[str, Callable[[_Parts], Method]] = {
    "words": lambda parts: parts.words,
    "keypoints": lambda parts: Words(Ranker(parts.fields, SiftKeypoints())),
    "words, re-ranked": lambda parts: Reranked(parts.fields, parts.words),
    "ImageNet": lambda parts: Learned.of(parts.fields),
    "cells": lambda parts: parts.everywhere,
    "signatures": lambda parts: Signatures(parts.searched),
    "shortlist": lambda parts: Shortlisted(parts.searched),
    "cells, verified": lambda parts: Verified(parts.fields, parts.everywhere),
    "shortlist, verified": lambda parts: Verified(parts.fields, Shortlisted(parts.searched)),
}
METHODS = tuple(f"{image}, {kind}" for image in ("raw", "CoMIR") for kind in _KINDS)
"""Of raw images and of their representations."""
USUAL = (
    *(f"{image}, {kind}" for image in ("raw", "CoMIR") for kind in ("words", "keypoints", "cells")),
    *(f"CoMIR, {kind}" for kind in ("words, re-ranked", "signatures", "cells, verified", "shortlist, verified")),
)
"""Those that are measured unless others are named: they need no further packages."""


def made(names: Sequence[str], images: Mapping[str, Sequence[Image]]) -> dict[str, Method]:
    """Make the methods of some names of `METHODS`, for fields as raw images and as representations.

    Raises
    ------
    ConfigError
        If one needs packages that are not installed.
    """
    parts = {kind: _Parts(fields) for kind, fields in images.items()}
    split = ((name, *name.split(", ", 1)) for name in names)
    return {name: _KINDS[method](parts[kind]) for name, kind, method in split}


def _whole(image: Image) -> Query:
    return Query(image, np.ones(image.shape, bool))


def _cells(image: Image) -> Cells:
    return Cells.of(image, np.ones(image.shape, bool))


def _found(hits: Sequence[Hit], gallery: Sequence[int]) -> Found:
    return Found(_in_order(gallery[hit.slide] for hit in hits), (hits[0].x, hits[0].y) if hits else None)


def _in_order(numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(numbers))
