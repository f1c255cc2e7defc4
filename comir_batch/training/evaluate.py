"""Figures of a model on tissue that it has not seen: how its representations agree, find each other, and turn."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from comir_batch.training.crops import Pose
from comir_batch.training.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.representation.device import Device
    from comir_batch.representation.store import Model
    from comir_batch.training.sampling import Network, Place
    from comir_batch.training.split import Part

    Image = NDArray[np.float32]
    Vector = NDArray[np.float64]

_WINDOWS, _CROPS, _PLACES, _STEP = 12, 48, 4, 30
_TILE, _SEARCH = 3 / 8, 3 / 32  # of a window's side


def evaluate(model: Model, parts: Sequence[Part], seed: int = 0, device: Device = "auto") -> dict[str, float]:
    """Return figures of a model on parts of aligned pairs that it has not seen.

    Places are drawn over all parts, from each as often as it has room for crops, so that a figure is a mean over parts
    weighted by their tissue. Intensity ranges are those of the whole slides, as in a run.

    Returns
    -------
    dict
        ``correlation``: of the two representations over the tissue of 12 windows of 256 pixels. ``retrieved``: share
        of 48 crops of 128 pixels whose partner, read from the moving slide at another angle, perhaps mirrored,
        represented and turned back, correlates best with them. ``true_pairs``, ``wrong_pairs``: mean correlations of
        those and of all others. ``turned_<modality>``: correlation of the representation with that of the turned
        image, turned back; mean over 4 places, the lowest of all angles in steps of 30 degrees.
        ``mirrored_<modality>``: likewise for mirrored images. ``shift_um``, ``shift_um_p95``: median and 95th
        percentile of the distance from zero at which tiles of 96 pixels correlate best, of at most 24 along each axis;
        left out where no tile has tissue. Small parts are measured with smaller windows and crops.

    Raises
    ------
    ModelError
        If the model does not fit the slides.
    SlideError
        If no part has room for a crop.
    """
    sampler, rng = Sampler(model, parts, device), np.random.default_rng(seed)
    side, places = sampler.draw(_WINDOWS, rng, window=True)
    figures = _agreement(sampler.networks, places, side, model.card.mpp)
    side, places = sampler.draw(_CROPS, rng)
    matched = match(sampler.networks, places, side)
    figures |= {name: getattr(matched, name) for name in ("retrieved", "true_pairs", "wrong_pairs")}
    for network in sampler.networks:
        for label, mirrored in (("turned", False), ("mirrored", True)):
            found = turning(network, places[:_PLACES], side, range(0, 360, _STEP), mirrored=mirrored)
            figures[f"{label}_{network.modality}"] = float(found.mean(axis=1).min())
    return {name: round(value, 4) for name, value in figures.items()}


class Matching(NamedTuple):
    """Correlations of fixed with moving crops, ``(N, N)``; partners have one index."""

    scores: Vector

    @property
    def true(self) -> Vector:
        """Correlations of partners, ``(N,)``."""
        return self.scores.diagonal()

    @property
    def wrong(self) -> Vector:
        """Correlations of all others, ``(N * (N - 1),)``."""
        return np.asarray(self.scores[~np.eye(len(self.scores), dtype=bool)])

    @property
    def retrieved(self) -> float:
        """Share of the crops, of either modality, whose partner correlates best with them."""
        right = np.arange(len(self.scores))
        return float(np.mean([self.scores.argmax(axis=axis) == right for axis in (0, 1)]))

    @property
    def true_pairs(self) -> float:
        """Mean correlation of partners."""
        return float(self.true.mean())

    @property
    def wrong_pairs(self) -> float:
        """Mean correlation of all others."""
        return float(self.wrong.mean())

    @property
    def auc(self) -> float:
        """Probability that partners correlate better than others (area under the ROC curve); ties count half."""
        true, wrong = self.true[:, None], self.wrong[None]
        return float(((true > wrong) + 0.5 * (true == wrong)).mean())


def match(networks: tuple[Network, Network], places: Sequence[Place], side: int) -> Matching:
    """Correlate upright fixed crops with moving crops that were turned, represented, and turned back."""
    fixed, moving = networks
    upright = np.stack([standard(fixed.represent(place, place.upright, side)) for place in places])
    turned = np.stack([_turned_standard(moving, place, place.pose, side) for place in places])
    return Matching(upright @ turned.T)


def turning(
    network: Network, places: Sequence[Place], side: int, degrees: Sequence[int], *, mirrored: bool
) -> NDArray[np.float64]:
    """Return how well a representation turns with its image, ``(angle, place)``.

    Crops are read from the slide at an angle, perhaps mirrored, represented, turned back, and correlated with the
    representation of the upright crop within a disc.
    """
    found = np.empty((len(degrees), len(places)))
    for column, place in enumerate(places):
        upright = standard(network.represent(place, place.upright, side))
        for row, angle in enumerate(degrees):
            pose = Pose(place.pose.x, place.pose.y, np.deg2rad(angle), mirrored)
            same = upright if pose == place.upright else _turned_standard(network, place, pose, side)
            found[row, column] = upright @ same
    return found


def _turned_standard(network: Network, place: Place, pose: Pose, side: int) -> Vector:
    return standard(turned_back(network.represent(place, pose, side), pose))


def turned_back(image: Image, pose: Pose) -> Image:
    """Turn the representation of a crop to what the crop at the same place and angle 0 would have."""
    linear = np.linalg.inv(pose.linear)
    centre = np.full(2, (image.shape[-1] - 1) / 2)
    matrix = np.column_stack([linear, centre - linear @ centre])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(channel, matrix, channel.shape[::-1], flags=flags) for channel in image])


def standard(image: Image) -> Vector:
    """Return the central disc of a square image as a vector of mean 0 and length 1; zeros where nothing varies."""
    side = image.shape[-1]
    away = np.arange(side) - (side - 1) / 2
    disc = image[:, np.hypot(away[:, None], away) < 3 * side / 8].ravel().astype(np.float64)
    return unit(disc)


def unit(values: Vector) -> Vector:
    """Return a vector with its mean taken away, of length 1; zeros where nothing varies."""
    centred = values - values.mean()
    length = np.linalg.norm(centred)
    return np.asarray(centred / length if length > 1e-6 * np.abs(values).max(initial=0) else np.zeros_like(centred))


def _agreement(networks: tuple[Network, Network], places: Sequence[Place], side: int, mpp: float) -> dict[str, float]:
    values: list[list[Vector]] = [[], []]
    shifts: list[float] = []
    for place in places:
        first, second = (network.window(place, side) for network in networks)
        seen = place.reader.fixed.tissue_at(place.upright, side)
        for kept, image in zip(values, (first, second), strict=True):
            kept.append(image[:, seen].ravel().astype(np.float64))
        shifts += [mpp * shift for shift in _shifts(first, second, seen)]
    figures = {"correlation": float(unit(np.concatenate(values[0])) @ unit(np.concatenate(values[1])))}
    if shifts:
        figures |= {"shift_um": float(np.median(shifts)), "shift_um_p95": float(np.percentile(shifts, 95))}
    return figures


def _shifts(first: Image, second: Image, seen: NDArray[np.bool_]) -> list[float]:
    """Return how far, in pixels, the correlation of each tile with tissue has its peak from zero."""
    side = len(seen)
    tile, search = round(_TILE * side), round(_SEARCH * side)
    wide = tile + 2 * search
    found = []
    for y, x in product(range(0, side - wide + 1, tile), repeat=2):
        inner = np.s_[y + search : y + search + tile, x + search : x + search + tile]
        if seen[inner].mean() > 0.5:
            around, part = _interleaved(first[:, y : y + wide, x : x + wide]), _interleaved(second[:, *inner])
            scores = cv2.matchTemplate(around, part, cv2.TM_CCOEFF_NORMED)
            found.append(float(np.hypot(*(_peak(scores) - search))))
    return found


def _interleaved(image: Image) -> Image:
    return np.ascontiguousarray(np.moveaxis(image, 0, -1))


def _peak(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Return the place ``(y, x)`` of the highest score, between pixels by a parabola along each axis."""
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    place = np.array([y, x], dtype=np.float64)
    for axis, line, at in ((0, scores[:, x], y), (1, scores[y], x)):
        if 0 < at < len(line) - 1:
            low, middle, high = (float(value) for value in line[at - 1 : at + 2])
            bend = low - 2 * middle + high
            place[axis] += 0.5 * (low - high) / bend if bend < 0 else 0.0
    return place
