"""Figures of a model on tissue that it has not seen: how its representations agree and turn."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from comir_batch.core.geometry import Region
from comir_batch.representation.weights import load
from comir_batch.training.crops import PairReader, Pose

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.representation.inference import Representer
    from comir_batch.representation.store import Model
    from comir_batch.training.crops import CropReader
    from comir_batch.training.pairs import TrainingPair

    Image = NDArray[np.float32]

_SIDE, _CROPS, _PLACES, _STEP = 128, 48, 4, 30
_TILE_UM, _SEARCH_UM = 64.0, 12.0


def evaluate(model: Model, pair: TrainingPair, seed: int = 0) -> dict[str, float]:
    """Return figures of a model on the part of a pair of aligned slides that it has not seen.

    Intensity ranges are those of the whole slides, as in a run.

    Returns
    -------
    dict
        ``correlation``: of the two representations over the tissue. ``retrieved``: share of 48 crops whose partner,
        read from the moving slide at another angle, perhaps mirrored, represented and turned back, correlates best
        with them. ``true_pairs``, ``wrong_pairs``: mean correlations of those and of all others.
        ``turned_<modality>``: correlation of the representation with that of the turned image, turned back; mean over
        4 places, the lowest of all angles in steps of 30 degrees. ``mirrored_<modality>``: likewise for mirrored
        images. ``shift_um``, ``shift_um_p95``: median and 95th percentile of the distance from zero at which tiles of
        64 µm correlate best.
    """
    with PairReader(pair, model.card.modalities, model.card.mpp, whole_ranges=True) as reader:
        fixed, moving = (load(model, card.modality) for card in model.card.modalities)
        rng = np.random.default_rng(seed)
        poses = [reader.draw(rng, _SIDE) for _ in range(_CROPS)]
        figures = _whole(reader, fixed, moving) | _retrieval(reader, fixed, moving, poses)
        for side, representer in ((reader.fixed, fixed), (reader.moving, moving)):
            name = representer.card.modality
            for label, mirrored in (("turned", False), ("mirrored", True)):
                figures[f"{label}_{name}"] = _equivariance(side, representer, poses[:_PLACES], mirrored=mirrored)
    return {name: round(value, 4) for name, value in figures.items()}


def represent_window(side: CropReader, representer: Representer) -> Image:
    """Return the representation ``(latent, Y, X)`` of all that a reader may read."""
    size = side.grid.width, side.grid.height
    return representer.represent(side.pixels, size, Region(0, 0, *size), side.ranges)


def _whole(reader: PairReader, fixed: Representer, moving: Representer) -> dict[str, float]:
    first, second = represent_window(reader.fixed, fixed), represent_window(reader.moving, moving)
    height, width = (min(a, b) for a, b in zip(first.shape[1:], second.shape[1:], strict=True))
    first, second = first[:, :height, :width], second[:, :height, :width]
    tissue = reader.fixed.tissue()[:height, :width]
    shifts = _shifts(first[0], second[0], tissue, reader.fixed.grid.mpp_x)
    return {
        "correlation": float(np.corrcoef(first[:, tissue].ravel(), second[:, tissue].ravel())[0, 1]),
        "shift_um": float(np.median(shifts)),
        "shift_um_p95": float(np.percentile(shifts, 95)),
    }


def _shifts(first: Image, second: Image, tissue: NDArray[np.bool_], mpp: float) -> NDArray[np.float64]:
    """Return how far, in µm, the correlation of each tile with tissue has its peak from zero."""
    height, width = first.shape
    tile, search = round(_TILE_UM / mpp), round(_SEARCH_UM / mpp)
    wide = tile + 2 * search
    places = product(range(0, height - wide + 1, tile), range(0, width - wide + 1, tile))
    found = []
    for y, x in places:
        inner = np.s_[y + search : y + search + tile, x + search : x + search + tile]
        if tissue[inner].mean() > 0.5:
            scores = cv2.matchTemplate(first[y : y + wide, x : x + wide], second[inner], cv2.TM_CCOEFF_NORMED)
            found.append(mpp * np.hypot(*(_peak(scores) - search)))
    return np.array(found)


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


def _retrieval(reader: PairReader, fixed: Representer, moving: Representer, poses: list[Pose]) -> dict[str, float]:
    upright = np.stack([_standard(fixed.run(reader.fixed.read(Pose(p.x, p.y), _SIDE))) for p in poses])
    turned = np.stack([_standard(_turned_back(moving.run(reader.moving.read(p, _SIDE)), p)) for p in poses])
    scores = upright @ turned.T
    right = np.arange(len(poses))
    hits = np.concatenate([scores.argmax(axis=0) == right, scores.argmax(axis=1) == right])
    return {
        "retrieved": float(hits.mean()),
        "true_pairs": float(scores.diagonal().mean()),
        "wrong_pairs": float(scores[~np.eye(len(poses), dtype=bool)].mean()),
    }


def _equivariance(side: CropReader, representer: Representer, places: list[Pose], *, mirrored: bool) -> float:
    upright = [_standard(representer.run(side.read(Pose(p.x, p.y), _SIDE))) for p in places]
    means = []
    for degrees in range(0 if mirrored else _STEP, 360, _STEP):
        poses = [Pose(p.x, p.y, np.deg2rad(degrees), mirrored) for p in places]
        turned = [_standard(_turned_back(representer.run(side.read(pose, _SIDE)), pose)) for pose in poses]
        means.append(np.mean([a @ b for a, b in zip(upright, turned, strict=True)]))
    return float(min(means))


def _turned_back(image: Image, pose: Pose) -> Image:
    """Turn the representation of a crop to what the crop at the same place and angle 0 would have."""
    cosine, sine, mirror = np.cos(pose.angle), np.sin(pose.angle), -1.0 if pose.mirrored else 1.0
    linear = np.linalg.inv([[mirror * cosine, -sine], [mirror * sine, cosine]])
    centre = np.full(2, (image.shape[-1] - 1) / 2)
    matrix = np.column_stack([linear, centre - linear @ centre])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(channel, matrix, channel.shape[::-1], flags=flags) for channel in image])


def _standard(image: Image) -> Image:
    """Return the central disc of a square image as a vector of mean 0 and length 1."""
    side = image.shape[-1]
    away = np.arange(side) - (side - 1) / 2
    disc = image[:, np.hypot(away[:, None], away) < 3 * side / 8].ravel()
    centred = disc - disc.mean()
    return np.asarray(centred / np.linalg.norm(centred))
