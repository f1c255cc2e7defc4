"""The global start: every rotation and both mirrorings, every shift by FFT, at a coarse level.

Scores count how much overlaps, so that a small accidental match does not beat a large true one: normalised correlation
as ``atanh(ncc) * sqrt(n)`` (Fisher's transform: standard normal for ``n`` independent samples of unrelated images),
masked after Padfield (IEEE TIP 2012), and mutual information of a few grey levels less its bias for ``n`` samples, all
shifts at once by cross-correlating level sets (Öfverstedt et al., Pattern Recognition Letters 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from scipy import fft

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine
from comir_batch.registration.coarse import GreyLevels, coarsened, common_mpp, shared_area

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RegisterConfig
    from comir_batch.registration.images import RegistrationImage, View


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A start that the search found.

    Attributes
    ----------
    transform : Affine
        Rotation, perhaps a mirroring, and shift: fixed µm to moving µm.
    view : {"comir", "raw"}
        Which view found it.
    angle : float
        Degrees.
    mirrored : bool
        Whether x is mirrored before the rotation.
    score : float
        Of the view's metric.
    z : float
        How far the score lies above those of the other angles, in robust standard deviations.
    """

    transform: Affine
    view: Literal["comir", "raw"]
    angle: float
    mirrored: bool
    score: float
    z: float


class _Peak(NamedTuple):
    score: float
    shift: tuple[int, int]
    angle: float
    mirrored: bool


class _Scorer(Protocol):
    """Scores all shifts of a rotated moving image; shifts that overlap too little have -inf."""

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]: ...


def search(view: View, config: RegisterConfig) -> tuple[Candidate, ...]:
    """Return the best ``config.candidates`` distinct starts, best first.

    Mutual information is searched at half of ``config.search_side``: it takes four times as many transforms.

    Raises
    ------
    RegistrationError
        If no rotation and shift overlaps enough.
    """
    side = config.search_side if view.metric == "ncc" else config.search_side // 2
    mpp = common_mpp(view.fixed, view.moving, side)
    fixed, moving = coarsened(view.fixed, mpp), coarsened(view.moving, mpp)
    turned = _Turntable(moving)
    rows, columns = (fft.next_fast_len(side + turned.side - 1, real=True) for side in fixed.grid.shape)
    scorer = _scorer(view, fixed, moving, (rows, columns), config)
    angles = np.arange(config.angles) * 360.0 / config.angles
    peaks = [_peak(scorer, turned, angle, mirrored) for mirrored in (False, True) for angle in angles]
    if not any(math.isfinite(peak.score) for peak in peaks):
        raise RegistrationError(
            f"the {view.name} images overlap by less than {config.min_overlap:.0%} at every rotation; "
            "check the tissue masks, or lower register.min_overlap"
        )
    chosen = _distinct(peaks, config, max(fixed.grid.shape) / 4)
    return tuple(
        Candidate(
            turned.transform(peak, fixed.grid.to_um([[0, 0]])[0]),
            view.name,
            peak.angle,
            peak.mirrored,
            peak.score,
            _significance(peak, peaks, config),
        )
        for peak in chosen
    )


class _Turntable:
    """The moving image, rotated about its centre on a square canvas that holds it at every angle."""

    def __init__(self, moving: RegistrationImage) -> None:
        self._pixels, self._mask, self._grid = moving.pixels, moving.mask.astype(np.float32), moving.grid
        self.side = math.ceil(math.hypot(*moving.grid.shape)) + 2
        self._middle = (self.side - 1) / 2

    def turned(self, angle: float, mirrored: bool) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:  # noqa: FBT001
        matrix = _turn(angle, mirrored)
        centre = np.array([self._grid.width - 1, self._grid.height - 1]) / 2
        to_moving = np.column_stack([matrix, centre - matrix @ [self._middle, self._middle]])
        size, flags = (self.side, self.side), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels, mask = (cv2.warpAffine(plane, to_moving, size, flags=flags) for plane in (self._pixels, self._mask))
        inside = mask > 0.5
        return np.where(inside, pixels / np.maximum(mask, 0.5), 0).astype(np.float32), inside

    def transform(self, peak: _Peak, fixed_origin: NDArray[np.float64]) -> Affine:
        """Return the transform in µm of a shift in canvas pixels; canvas and fixed image have one pixel size."""
        matrix, mpp = _turn(peak.angle, peak.mirrored), self._grid.mpp_x
        corners = self._grid.corners_um()
        from_middle = np.array(peak.shift) - self._middle
        return Affine(matrix, corners.mean(axis=0) + matrix @ (from_middle * mpp - fixed_origin))


def _turn(angle: float, mirrored: bool) -> NDArray[np.float64]:  # noqa: FBT001
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])


def _scorer(
    view: View, fixed: RegistrationImage, moving: RegistrationImage, shape: tuple[int, int], config: RegisterConfig
) -> _Scorer:
    least = config.min_overlap * min(np.count_nonzero(fixed.mask), np.count_nonzero(moving.mask))
    kind = _Correlation if view.metric == "ncc" else _Information
    return kind(fixed, moving, _Transforms(shape, config.threads), least)


class _Transforms(NamedTuple):
    """FFTs of one size; in arrays of scores, index ``(y, x)`` is the shift."""

    shape: tuple[int, int]
    threads: int

    def spectra(self, planes: Sequence[NDArray[np.float32]]) -> NDArray[np.complex64]:
        spectra: NDArray[np.complex64] = fft.rfft2(np.stack(planes), self.shape, workers=self.threads)
        return spectra

    def inverse(self, spectra: NDArray[np.complex64]) -> NDArray[np.float32]:
        planes: NDArray[np.float32] = fft.irfft2(spectra, self.shape, workers=self.threads)
        return planes


class _Correlation:
    """Masked normalised cross-correlation."""

    def __init__(
        self, fixed: RegistrationImage, moving: RegistrationImage, transforms: _Transforms, least: float
    ) -> None:
        self._least, self._transforms = least, transforms
        self._area = shared_area(fixed, moving)
        self._fixed = np.conj(transforms.spectra(_moments(fixed.pixels, fixed.mask)))

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        fixed, moving = self._fixed, self._transforms.spectra(_moments(pixels, mask))
        products = np.concatenate([fixed * moving[0], fixed[0] * moving[1:], fixed[1:2] * moving[1]])
        count, sum_f, squares_f, sum_m, squares_m, product = self._transforms.inverse(products)
        enough = count >= self._least
        n = np.where(enough, count, 1)
        variance = (squares_f - sum_f**2 / n) * (squares_m - sum_m**2 / n)
        covariance = product - sum_f * sum_m / n
        ncc = covariance / np.sqrt(np.maximum(variance, (1e-4 * n) ** 2))
        scores = np.arctanh(np.clip(ncc, -0.999, 0.999)) * np.sqrt(n / self._area)
        return np.where(enough, scores, -np.inf)


def _moments(pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    """Return mask, values and squares, standardised over the mask so that float32 suffices for their sums."""
    inside = pixels[mask] if mask.any() else np.zeros(1, np.float32)
    values = np.where(mask, (pixels - inside.mean()) / (inside.std() or 1.0), 0).astype(np.float32)
    return [mask.astype(np.float32), values, values**2]


class _Information:
    """Mutual information of quantised grey levels."""

    def __init__(
        self, fixed: RegistrationImage, moving: RegistrationImage, transforms: _Transforms, least: float
    ) -> None:
        self._least, self._transforms = least, transforms
        self._area = shared_area(fixed, moving)
        self._levels = GreyLevels.of(moving.pixels[moving.mask])
        sets = _level_sets(GreyLevels.of(fixed.pixels[fixed.mask]), fixed.pixels, fixed.mask)
        self._fixed = np.conj(transforms.spectra(sets))

    def scores(self, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        moving = self._transforms.spectra(_level_sets(self._levels, pixels, mask))
        joint = np.stack([self._transforms.inverse(level * moving) for level in self._fixed])
        total = joint.sum(axis=(0, 1))
        enough = total >= self._least
        scores = np.full(total.shape, -np.inf, dtype=np.float32)
        scores[enough] = information_score(joint[:, :, enough], self._area)
        return scores


def _level_sets(levels: GreyLevels, pixels: NDArray[np.float32], mask: NDArray[np.bool_]) -> list[NDArray[np.float32]]:
    labels = np.where(mask, levels.label(pixels), -1)
    return [(labels == level).astype(np.float32) for level in range(levels.count)]


def information_score(joint: NDArray[np.float32], area: float) -> NDArray[np.float32]:
    """Return ``(MI - bias) * sqrt(n)`` in nats from joint histograms; the bias is ``(K - 1)^2 / 2n`` (Miller, 1955).

    Parameters
    ----------
    joint : (K, K, N) float32
        Counts of each pair of grey levels; N alignments.
    area : float
        Pixels that are worth one independent sample, ``n = counts / area``.
    """
    total = joint.sum(axis=(0, 1))
    information = (
        _n_log_n(joint).sum(axis=(0, 1))
        - _n_log_n(joint.sum(axis=0)).sum(axis=0)
        - _n_log_n(joint.sum(axis=1)).sum(axis=0)
        + _n_log_n(total)
    ) / total
    n = total / area
    scores: NDArray[np.float32] = (information - (len(joint) - 1) ** 2 / (2 * n)) * np.sqrt(n)
    return scores


def _n_log_n(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    return counts * np.log(np.maximum(counts, 0.5))  # FFT noise about zero counts as zero


def _peak(scorer: _Scorer, turntable: _Turntable, angle: float, mirrored: bool) -> _Peak:  # noqa: FBT001
    scores = scorer.scores(*turntable.turned(angle, mirrored))
    y, x = np.unravel_index(int(scores.argmax()), scores.shape)
    shift = tuple(_signed(int(at), size, turntable.side) for at, size in ((x, scores.shape[1]), (y, scores.shape[0])))
    return _Peak(float(scores[y, x]), (shift[0], shift[1]), float(angle), mirrored)


def _signed(index: int, size: int, side: int) -> int:
    """Undo the wrap-around: shifts run from ``-(fixed side - 1)`` to ``side - 1``."""
    return index if index < side else index - size


def _steps_apart(a: _Peak, b: _Peak, config: RegisterConfig) -> float:
    if a.mirrored != b.mirrored:
        return math.inf
    turn = abs(a.angle - b.angle) % 360.0
    return min(turn, 360.0 - turn) * config.angles / 360.0


def _distinct(peaks: Sequence[_Peak], config: RegisterConfig, apart: float) -> list[_Peak]:
    """Return the best peaks, without those on the slope of a better one: within 15 degrees and ``apart`` pixels."""
    slope = 15.0 * config.angles / 360.0
    chosen: list[_Peak] = []
    for peak in sorted((peak for peak in peaks if math.isfinite(peak.score)), key=lambda peak: -peak.score):
        near = (math.dist(peak.shift, p.shift) <= apart and _steps_apart(peak, p, config) <= slope for p in chosen)
        if len(chosen) < config.candidates and not any(near):
            chosen.append(peak)
    return chosen


def _significance(peak: _Peak, peaks: Sequence[_Peak], config: RegisterConfig) -> float:
    others = [p.score for p in peaks if math.isfinite(p.score) and _steps_apart(p, peak, config) > 2]
    if len(others) < 2:
        return 0.0
    middle = float(np.median(others))
    spread = 1.4826 * float(np.median(np.abs(np.array(others) - middle)))
    return (peak.score - middle) / spread if spread > 0 else 0.0
