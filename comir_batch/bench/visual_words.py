"""Visual words: centres of mini-batch k-means, closed under the symmetries of what they describe.

What Breznik et al. (Sci. Rep. 14:18798, 2024) rank with; here beside our own look-up. Mini-batch k-means after Sculley
(WWW 2010). A vocabulary is made of `size / G` centres and their images under the G symmetries of the descriptors: word
``g * bases + b`` is centre ``b`` changed by symmetry ``g``. So the words of a turned or mirrored image are those of the
image itself, renamed, and need not be looked up again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
from scipy.sparse import csr_matrix

from comir_batch.bench.dense_sift import LENGTH, SYMMETRIES, Lattice, describe, normalised
from comir_batch.core.errors import TaskError
from comir_batch.retrieval.templates import linear

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Descriptors = NDArray[np.float32]
    Image = NDArray[np.float32]

_BATCH = 4096
_ROUNDS = 60
_AT_ONCE = 8192  # descriptors whose distances to all words are held in memory
_STRONGEST = 0.8
WORDS = 2048
"""Of a vocabulary, by default."""
_LEARNT = 100_000
_COMMON, _RARE = 0.9, 0.01
_ANGLES = range(0, 90, 15)  # with the symmetries, all angles


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Centres of visual words.

    Attributes
    ----------
    bases : (B, D) float32
        Centres, of which the words are the images.
    symmetries : (G, D) int
        Orders of a descriptor's numbers; the first changes nothing, and they form a group.
    """

    bases: Descriptors
    symmetries: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.bases) * len(self.symmetries)

    @cached_property
    def centres(self) -> Descriptors:
        """``(G * B, D)`` float32 words."""
        return np.concatenate([self.bases[:, order] for order in self.symmetries])

    @cached_property
    def renamed(self) -> NDArray[np.intp]:
        """``(G, words)``: word ``w`` of an image is word ``renamed[g, w]`` of the image changed by symmetry g."""
        codes = {tuple(order): number for number, order in enumerate(self.symmetries.tolist())}
        table = np.array([[codes[tuple(first[then])] for first in self.symmetries] for then in self.symmetries])
        bases = len(self.bases)
        words = table[:, :, None] * bases + np.arange(bases)
        return np.asarray(words.reshape(len(self.symmetries), -1), dtype=np.intp)

    def words(self, descriptors: Descriptors) -> NDArray[np.int32]:
        """Return the nearest word of each of ``(N, D)`` descriptors."""
        found = np.empty(len(descriptors), np.int32)
        half = (self.centres**2).sum(axis=1) / 2
        for start in range(0, len(descriptors), _AT_ONCE):
            part = descriptors[start : start + _AT_ONCE]
            found[start : start + _AT_ONCE] = (half - part @ self.centres.T).argmin(axis=1)
        return found


def learn(
    images: Sequence[tuple[Descriptors, NDArray[np.float32]]],
    size: int,
    symmetries: NDArray[np.intp],
    most: int = 200_000,
    seed: int = 1,
) -> Vocabulary:
    """Learn a vocabulary from the strongest four fifths of each image's descriptors, as many of each image.

    Parameters
    ----------
    images : sequence of ((N, D) float32, (N,) float32)
        Descriptors and strengths of each image.
    size : int
        Words that are wanted, a multiple of the number of symmetries; fewer where there are fewer descriptors.
    symmetries : (G, D) int
        See `Vocabulary`.
    most : int
        Descriptors to learn from.
    seed : int
        Of the choice of descriptors and of the first centres.

    Raises
    ------
    TaskError
        If the images have no descriptors.
    """
    rng = np.random.default_rng(seed)
    chosen = balanced(images, most, rng)
    if not len(chosen):
        raise TaskError("there is nothing to learn visual words from; check the images and their tissue masks")
    bases = min(max(size // len(symmetries), 1), len(chosen))
    centres = chosen[rng.choice(len(chosen), bases, replace=False)].copy()
    counts = np.zeros(bases)
    for batch in _batches(chosen, rng):
        current = Vocabulary(centres, symmetries)
        symmetry, base = np.divmod(current.words(batch), bases)
        undone = np.take_along_axis(batch, np.argsort(symmetries, axis=1)[symmetry], axis=1)
        totals = np.zeros_like(centres)
        np.add.at(totals, base, undone)
        number = np.bincount(base, minlength=bases)
        counts += number
        rate = (number / np.maximum(counts, 1)).astype(np.float32)[:, None]
        means = totals / np.maximum(number, 1)[:, None].astype(np.float32)
        centres = (centres + rate * (means - centres)).astype(np.float32)
    return Vocabulary(centres.astype(np.float32), symmetries)


def balanced(
    images: Sequence[tuple[Descriptors, NDArray[np.float32]]], most: int, rng: np.random.Generator
) -> Descriptors:
    """Return as many of the strongest four fifths of each image's descriptors as of the others, ``most`` in all."""
    kept = [_strongest(descriptors, strengths) for descriptors, strengths in images if len(descriptors)]
    if not kept:
        return np.zeros((0, 0), np.float32)
    share = min(max(most // len(kept), 1), *(len(descriptors) for descriptors in kept))
    return np.concatenate([each[rng.choice(len(each), share, replace=False)] for each in kept])


def _strongest(descriptors: Descriptors, strengths: NDArray[np.float32]) -> Descriptors:
    number = max(round(_STRONGEST * len(descriptors)), 1)
    return descriptors[np.argsort(-strengths, kind="stable")[:number]]


def _batches(chosen: Descriptors, rng: np.random.Generator) -> Iterator[Descriptors]:
    for _ in range(_ROUNDS):
        yield chosen[rng.integers(0, len(chosen), min(_BATCH, len(chosen)))]


class Features(Protocol):
    """What of an image is counted."""

    symmetries: NDArray[np.intp]

    def described(self, image: Image, mask: NDArray[np.bool_]) -> tuple[Descriptors, NDArray[np.float32]]:
        """Return ``(N, D)`` descriptors and their strengths."""

    def views(self, image: Image) -> Iterator[tuple[Image, NDArray[np.bool_]]]:
        """Yield a query as it is described, with masks: with the symmetries, these are all its poses."""


class DenseSift:
    """Blocks of four widths on a lattice of 8 pixels; a query is turned in steps of 15 degrees."""

    symmetries = SYMMETRIES

    def described(self, image: Image, mask: NDArray[np.bool_]) -> tuple[Descriptors, NDArray[np.float32]]:
        """See `Features`."""
        parts = describe(image, mask, Lattice())
        kept = [(part.descriptors[part.inside], part.strengths[part.inside]) for part in parts]
        return np.concatenate([each for each, _ in kept]), np.concatenate([each for _, each in kept])

    def views(self, image: Image) -> Iterator[tuple[Image, NDArray[np.bool_]]]:
        """See `Features`."""
        for angle in _ANGLES:
            yield _turned(image, angle)


class SiftKeypoints:
    """SIFT's own keypoints (Lowe, IJCV 2004), which tell how they are turned, but not whether they are mirrored."""

    symmetries = np.arange(LENGTH)[None]

    def described(self, image: Image, mask: NDArray[np.bool_]) -> tuple[Descriptors, NDArray[np.float32]]:
        """See `Features`; strengths are the detector's responses."""
        found, raw = cv2.SIFT.create().detectAndCompute(evened(image, mask), mask.astype(np.uint8))
        if raw is None:
            return np.zeros((0, LENGTH), np.float32), np.zeros(0, np.float32)
        return normalised(np.asarray(raw, np.float32))[0], np.array([point.response for point in found], np.float32)

    def views(self, image: Image) -> Iterator[tuple[Image, NDArray[np.bool_]]]:
        """See `Features`."""
        everywhere = np.ones(image.shape, bool)
        yield image, everywhere
        yield np.ascontiguousarray(image[:, ::-1]), everywhere


def evened(image: Image, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return 8-bit grey values, the lowest and the highest half per cent clipped."""
    low, high = np.percentile(image[mask], (0.5, 99.5))
    return np.asarray(np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255, dtype=np.uint8)


class Ranker:
    """Ranks images by the cosine of their histograms of words, weighted by how rare these are (tf-idf).

    Words of more than nine tenths of the images, or of fewer than one in a hundred, do not count. The histograms lie in
    an inverted index: for each word the images that have it, so that a query meets those of its own words alone.

    Parameters
    ----------
    images : sequence of (Y, X) float32
        At least two.
    features : Features
        What of them is counted.
    words : int
        Size of the vocabulary.
    """

    def __init__(self, images: Sequence[Image], features: Features | None = None, words: int = WORDS) -> None:
        self._features = features or DenseSift()
        described = [self._features.described(image, np.ones(image.shape, bool)) for image in images]
        self._vocabulary = learn(described, words, self._features.symmetries, most=_LEARNT)
        counts = np.array([self._histogram(descriptors) for descriptors, _ in described])
        share = (counts > 0).mean(axis=0)
        counted = (share <= _COMMON) & (share >= _RARE)
        self._weights = np.where(counted, np.log(1 / np.maximum(share, 1e-6)), 0)
        self._index = csr_matrix(self._weighted(counts).T)

    def rank(self, query: Image) -> NDArray[np.intp]:
        """Return the images' numbers, best first, by the best of all the query's poses."""
        return np.argsort(-self.cosines(query), kind="stable")

    def cosines(self, query: Image) -> NDArray[np.float64]:
        """Return the cosine of each image with the best of the query's poses."""
        found: NDArray[np.float64] = (csr_matrix(self._weighted(self.histograms(query))) @ self._index).toarray()
        return np.asarray(found.max(axis=0))

    def histograms(self, query: Image) -> NDArray[np.float64]:
        """Return how often a query has each word at each pose, ``(poses, words)``."""
        turned = []
        for view, mask in self._features.views(query):
            histogram = self._histogram(self._features.described(view, mask)[0])
            for names in self._vocabulary.renamed:
                renamed = np.zeros_like(histogram)
                renamed[names] = histogram
                turned.append(renamed)
        return np.array(turned)

    def _histogram(self, descriptors: Descriptors) -> NDArray[np.float64]:
        size = len(self._vocabulary)
        return np.bincount(self._vocabulary.words(descriptors), minlength=size).astype(np.float64)

    def _weighted(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        weighted = counts * self._weights
        return np.asarray(weighted / np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-9))


def _turned(image: NDArray[np.float32], angle: float) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return an image at an angle in degrees on a square that holds it, and where it is."""
    height, width = image.shape
    side = math.ceil(math.hypot(height, width)) if angle else max(height, width)
    matrix = linear(angle, mirrored=False)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    to_image = np.column_stack([matrix, middle - matrix @ np.full(2, (side - 1) / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels, inside = (
        cv2.warpAffine(plane, to_image, (side, side), flags=flags) for plane in (image, np.ones_like(image))
    )
    return np.asarray(pixels, np.float32), np.asarray(inside > 0.99)
