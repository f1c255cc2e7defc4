"""How alike two images look where no fit has looked, and whether wrong alignments could look as alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metric = Literal["ncc", "mi"]

_MIN_SHARE = 0.25  # of a tile that must be valid
_BINS = 8
_FLAT = 1e-6  # variance, relative to the image's, below which a tile is flat
_SMALLEST_SPREAD = 1e-4  # of a null; keeps z finite for blank images
_LEAST_KNOWN = 10  # wrong alignments with tiles to compare, for a null
_ROUNDS = 8  # of wrong alignments: narrow tissue leaves itself at most of them


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One image on the fixed grid: ``(Y, X)`` float32 pixels, and where they are tissue, ``(Y, X)`` bool."""

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Similarity:
    """Similarity on held-out tiles; every number is finite, and all but z are zero where there was nothing to compare.

    Attributes
    ----------
    metric : {"ncc", "mi"}
        Normalised cross-correlation, or mutual information in nats.
    tiles : int
        Number of tiles compared.
    before, after : float
        Mean over the tiles, weighted by their valid pixels, at the start and at the found transform.
    z_before, z : float or None
        The same in robust standard deviations above wrong alignments; None where there is no tile to compare, or where
        too few wrong alignments have any.
    share_improved : float
        Share of the tiles that are more alike after than before.
    """

    metric: Metric
    tiles: int
    before: float
    after: float
    z_before: float | None
    z: float | None
    share_improved: float


def compare(
    fixed: Layer,
    before: Layer,
    after: Layer,
    *,
    tile: int,
    metric: Metric,
    seed: int = 0,
    null_samples: int = 128,
) -> Similarity:
    """Compare the fixed image with the moving one as it lay before and as it lies after registration.

    The null is the registered image moved by random offsets of one to four tiles: about the same tissue, wrongly
    aligned. What remains of the similarity then comes from texture and outlines, not from alignment. Offsets that take
    the tissue off all tiles tell nothing; where too few are left, more are drawn.

    Parameters
    ----------
    fixed : Layer
        Its mask is True on tissue of held-out tiles only.
    before, after : Layer
        The moving image resampled on the fixed grid; the masks are True on moving tissue.
    tile : int
        Side of the tiles in pixels; an incomplete last row or column is left out.
    metric : {"ncc", "mi"}
        Which suits the images: "ncc" for representations, "mi" for raw modalities.
    seed, null_samples : int
        Of the wrong alignments.
    """
    scorer = _Scorer(fixed, tile, metric)
    start, end = scorer.searchable(before), scorer.searchable(after)
    old, old_weights = scorer.values(start)
    new, new_weights = scorer.values(end)
    used = new_weights > 0
    was, now = _mean(old, old_weights), _mean(new, new_weights)
    return Similarity(
        metric=metric,
        tiles=int(used.sum()),
        before=was or 0.0,
        after=now or 0.0,
        z_before=_robust_z(was, _null(scorer, start, seed, null_samples)),
        z=_robust_z(now, _null(scorer, end, seed, null_samples)),
        share_improved=float((new > old)[used].mean()) if used.any() else 0.0,
    )


def tile_similarity(
    fixed: Layer, moving: Layer, *, tile: int, metric: Metric
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the similarity of each tile and its number of valid pixels, for maps of the worst places.

    Parameters
    ----------
    fixed, moving : Layer
        Images on one grid.
    tile : int
        Side of the tiles in pixels.
    metric : {"ncc", "mi"}
        Measure of similarity.

    Returns
    -------
    values : (Y // tile, X // tile) float64
        Zero where a tile is flat or too little of it is valid.
    weights : (Y // tile, X // tile) int64
        Valid pixels; zero where the tile does not count.
    """
    scorer = _Scorer(fixed, tile, metric)
    values, weights = np.zeros(scorer.shape), np.zeros(scorer.shape, dtype=np.int64)
    places = tuple(scorer.corners.T // tile)
    values[places], weights[places] = scorer.values(scorer.searchable(moving))
    return values, weights


@dataclass(frozen=True, slots=True, eq=False)
class _Searchable:
    """A moving image whose tiles can be taken from anywhere near: pixels and mask, wrapped around by ``reach``."""

    pixels: NDArray[Any]
    mask: NDArray[np.bool_]
    reach: int

    def tiles(self, corners: NDArray[np.int64], side: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        at = tuple((corners + self.reach).T)
        pixels = sliding_window_view(self.pixels, (side, side))[at]
        mask = sliding_window_view(self.mask, (side, side))[at]
        return pixels.reshape(len(corners), -1), mask.reshape(len(corners), -1)


class _Scorer:
    """Compares the tissue tiles of one fixed image with those of many moving ones."""

    def __init__(self, fixed: Layer, tile: int, metric: Metric) -> None:
        self.tile, self._metric = tile, metric
        self.size: tuple[int, ...] = fixed.mask.shape
        self.shape = fixed.mask.shape[0] // tile, fixed.mask.shape[1] // tile
        self._reach = min(4 * tile, min(fixed.mask.shape) // 2) + 1
        everywhere = np.indices(self.shape).reshape(2, -1).T * tile
        self._least = max(_MIN_SHARE * tile**2, 1)
        prepared = self.searchable(fixed)
        covered = prepared.tiles(everywhere, tile)[1].sum(axis=1) if len(everywhere) else np.zeros(0)
        self.corners: NDArray[np.int64] = everywhere[covered >= self._least]
        if len(self.corners):
            self._pixels, self._mask = prepared.tiles(self.corners, tile)

    def searchable(self, layer: Layer) -> _Searchable:
        """Prepare an image: standardised for correlation, binned for information."""
        prepare = _standardised if self._metric == "ncc" else _binned
        pixels = np.pad(prepare(layer), self._reach, mode="wrap")
        return _Searchable(pixels, np.pad(layer.mask, self._reach, mode="wrap"), self._reach)

    def values(self, moving: _Searchable, dx: int = 0, dy: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return similarity and valid pixels (0: does not count) of each tile, the moving image displaced."""
        if not len(self.corners):
            return np.zeros(0), np.zeros(0, dtype=np.int64)
        pixels, mask = moving.tiles(self.corners + np.array([dy, dx]), self.tile)
        valid = self._mask & mask
        weights = valid.sum(axis=1)
        weights[weights < self._least] = 0
        measure = _correlations if self._metric == "ncc" else _informations
        return np.where(weights > 0, measure(self._pixels, pixels, valid), 0.0), weights


def _standardised(layer: Layer) -> NDArray[np.float32]:
    values = layer.pixels[layer.mask]
    if not values.size:
        return np.zeros_like(layer.pixels)
    spread = float(values.std(dtype=np.float64))
    return np.asarray((layer.pixels - values.mean(dtype=np.float64)) / (spread or 1.0), dtype=np.float32)


def _binned(layer: Layer) -> NDArray[np.uint8]:
    values = layer.pixels[layer.mask]
    if not values.size:
        return np.zeros(layer.pixels.shape, dtype=np.uint8)
    edges = np.unique(np.quantile(values, np.arange(1, _BINS) / _BINS))
    return np.searchsorted(edges, layer.pixels, side="left").astype(np.uint8)


def _correlations(
    fixed: NDArray[np.float32], moving: NDArray[np.float32], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    count = np.maximum(valid.sum(axis=1), 1)
    f, m = np.where(valid, fixed, 0), np.where(valid, moving, 0)
    mean_f, mean_m = f.sum(axis=1) / count, m.sum(axis=1) / count
    covariance = (f * m).sum(axis=1) / count - mean_f * mean_m
    variance_f = (f * f).sum(axis=1) / count - mean_f**2
    variance_m = (m * m).sum(axis=1) / count - mean_m**2
    textured = (variance_f > _FLAT) & (variance_m > _FLAT)
    product = np.where(textured, variance_f * variance_m, 1.0)
    return np.asarray(np.where(textured, np.clip(covariance / np.sqrt(product), -1, 1), 0.0), dtype=np.float64)


def _informations(fixed: NDArray[np.uint8], moving: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the mutual information of each tile in nats, less its expectation for independent images.

    The expectation is (K - 1)(L - 1) / 2n for n samples in K by L occupied bins (Miller 1955).
    """
    tiles = len(fixed)
    cell = np.arange(tiles)[:, None] * _BINS**2 + (fixed * _BINS + moving)
    joint = np.bincount(cell[valid], minlength=tiles * _BINS**2).reshape(tiles, _BINS, _BINS)
    count = np.maximum(joint.sum(axis=(1, 2)), 1)
    across, down = joint.sum(axis=1), joint.sum(axis=2)
    information = _entropies(across, count) + _entropies(down, count) - _entropies(joint.reshape(tiles, -1), count)
    excess = ((across > 0).sum(axis=1) - 1) * ((down > 0).sum(axis=1) - 1) / (2 * count)
    return np.asarray(information - excess, dtype=np.float64)


def _entropies(histograms: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    share = histograms / count[:, None]
    return np.asarray(-(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1))


def _null(scorer: _Scorer, moving: _Searchable, seed: int, count: int) -> list[float]:
    """Return the mean similarity at `count` wrong offsets, less those without tiles; at more where few are left."""
    random, known = np.random.default_rng(seed), list[float]()
    for _ in range(_ROUNDS):
        offsets = _wrong_offsets(scorer.size, scorer.tile, random, count)
        means = (_mean(*scorer.values(moving, dx, dy)) for dx, dy in offsets)
        known += [mean for mean in means if mean is not None]
        if len(known) >= _LEAST_KNOWN or not len(scorer.corners):
            break
    return known


def _wrong_offsets(shape: tuple[int, ...], tile: int, random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return (count, 2) offsets ``(dx, dy)`` of one to four tiles, at most half the image."""
    half = min(shape) / 2
    radius = random.uniform(min(tile, half / 2), min(4 * tile, half), count)
    angle = random.uniform(0, 2 * np.pi, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).round().astype(np.int64)


def _mean(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float | None:
    """Return the mean over all tiles; None if there are none."""
    return float(np.average(values, weights=weights)) if weights.any() else None


def _robust_z(value: float | None, null: list[float]) -> float | None:
    if value is None or len(null) < _LEAST_KNOWN:
        return None
    centre = float(np.median(null))
    spread = 1.4826 * float(np.median(np.abs(np.array(null) - centre)))
    return (value - centre) / max(spread, _SMALLEST_SPREAD)
