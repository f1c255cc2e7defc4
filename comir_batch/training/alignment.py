"""Whether the pairs that training takes as aligned are: measured on the raw images, without any model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.card import Input
from comir_batch.core.errors import ManifestError, Problem
from comir_batch.training.crops import CropReader, Pose
from comir_batch.training.shift_surface import REACH, SIDE, find_peak, fixed_spectra, moving_spectra
from comir_batch.training.split import Box
from comir_batch.training.turned import WIDEST_DEG, best_turn, far_shift

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from comir_batch.training.pairs import TrainingPair
    from comir_batch.training.shift_surface import Peak, Spectra
    from comir_batch.training.split import Part

_GREY = Input(reduction="mean")
_CLEAR = 10.0  # unrelated images, mirrored ones among them, stay below
_AT_REST_PX, _CLEAR_AT_REST = 1.5, 5.0  # of all shifts chance seldom prefers this one, which the user claims
_STEP = SIDE - 2 * REACH
_GROUPS = 3  # along an axis
_TILES = 4  # in a group, at most
_FEWEST_GROUPS = 4
_AGREEING_PX = 4.0
_LEAST_TISSUE = 0.4  # of a tile of either slide
_FEWEST_TILES = 4
TOLERANCE_PX = 6.0
"""How far off a pair may lie, in pixels of the training."""
_SUPPORTED = 6.0  # what is clear enough where coarser images show the same
_NEAR_THE_END_PX = REACH - 3.0  # where a peak may be the foot of one that lies further off
_FAR_ERROR_PX = 3.0  # of the coarse images that tell of shifts so far
_UNLESS = "leave the row out; or, if you know better, give --set check_alignment=false"
_REMEDY = f"Register them first with comir-batch run, then train with --from-run RUN; {_UNLESS}"
_REMEDY_MEASURED = f"Register them first with comir-batch run, and hold out what is aligned; {_UNLESS}"


@dataclass(frozen=True, slots=True)
class Alignment:
    """How far a pair is from being aligned, as its raw images tell.

    Attributes
    ----------
    shift_um : float
        How far the moving image lies off at the middle of the part.
    z : float
        How clear that is, in robust standard deviations over other shifts.
    known : bool
        Whether it is clear enough to believe.
    angle_deg : float
        By how much the moving image is turned, clockwise as seen.
    off_px : float
        Root mean square distance of the two images over the part, in pixels of the training.
    sentence : str
        The same in words.
    """

    shift_um: float
    z: float
    known: bool
    angle_deg: float
    off_px: float
    sentence: str


def measure(pair: TrainingPair, box: Box, seed: int = 0) -> Alignment:
    """Measure how well a part of a pair is aligned.

    Tiles of the working level tell shifts of up to 24 pixels, and together how much the moving image is turned. Where
    they see nothing, coarser images are tried at shifts of up to half of the part, and under turns of up to 9 degrees,
    quarter turns and mirroring.

    Parameters
    ----------
    pair : TrainingPair
        The slides.
    box : Box
        The part.
    seed : int
        Of the choice of tiles.

    Raises
    ------
    SlideError
        If the part has no pixels, no tissue or no contrast.
    """
    tiles = _Tiles(pair, box, seed)
    peak = find_peak([spectrum for group in tiles.groups for spectrum in group.spectra])
    at_rest = peak.z >= _CLEAR_AT_REST and np.hypot(*peak[:2]) <= _AT_REST_PX
    clear = at_rest or (peak.z >= _CLEAR and peak.inside)
    if clear and not _is_near_the_end(peak):
        return _from_tiles(pair, tiles, peak)
    far = far_shift(pair, box)
    if far is not None and np.abs(far.shift_um).max() > max(_NEAR_THE_END_PX * tiles.mpp, _FAR_ERROR_PX * far.mpp):
        return _alignment(pair, tiles, far.shift_um / tiles.mpp, 0.0, far.z, "about ")
    if clear:
        return _from_tiles(pair, tiles, peak, "at least ")
    turn = best_turn(pair, box)
    if not turn.clear:
        sentence = (
            f"pair {pair.name}: whether it is aligned cannot be told from the raw images, which show no clear common "
            f"structure at shifts by up to half of their side, or turned by up to {WIDEST_DEG:g} degrees"
        )
        return Alignment(0.0, max(peak.z, turn.peak.z), known=False, angle_deg=0.0, off_px=0.0, sentence=sentence)
    if turn.orientation:
        sentence = f"pair {pair.name}: the moving image looks {turn.orientation}"
        return Alignment(0.0, turn.peak.z, known=True, angle_deg=0.0, off_px=np.inf, sentence=sentence)
    coarse, fine = np.array(turn.peak[:2]) * turn.mpp / tiles.mpp, np.array(peak[:2])
    same = turn.angle_deg == 0 and peak.z >= _SUPPORTED and np.hypot(*(fine - coarse)) <= 2 * turn.mpp / tiles.mpp
    word = "at least " if _is_near_the_end(turn.peak) else ""
    return _alignment(pair, tiles, fine if same else coarse, np.radians(turn.angle_deg), turn.peak.z, word)


def _is_near_the_end(peak: Peak) -> bool:
    return peak.end > _NEAR_THE_END_PX


def alignments(pairs: Sequence[TrainingPair], parts: Sequence[Part]) -> dict[str, Alignment]:
    """Measure each pair on those of the parts that are its own, and return what was found by name."""
    return {pair.name: measure(pair, _hull(pair, parts)) for pair in pairs}


def is_off(found: Alignment, tolerance_px: float = TOLERANCE_PX) -> bool:
    """Tell whether a pair is clearly misaligned, by more than so many pixels of the training."""
    return found.known and found.off_px > tolerance_px


def in_words(found: Collection[Alignment]) -> tuple[str, ...]:
    """Return a sentence on each pair, and a warning where nothing can be told of any."""
    sentences = tuple(each.sentence for each in found)
    if not sentences or any(each.known for each in found):
        return sentences
    warning = (
        f"CAREFUL: of none of the pairs ({len(sentences)}) can be told whether it is aligned. If they are not, nothing "
        "can be learnt from them, and no figure that is measured on them says anything. Look at overlays first"
    )
    return (*sentences, warning)


def require_aligned(
    pairs: Sequence[TrainingPair],
    parts: Sequence[Part],
    *,
    tolerance_px: float = TOLERANCE_PX,
    enforced: bool = True,
    measured: bool = False,
) -> dict[str, Alignment]:
    """Measure each pair on the parts that are read, and return what was found by name.

    Parameters
    ----------
    pairs : sequence of TrainingPair
        All of them.
    parts : sequence of Part
        What is read of them; the rest is left alone.
    tolerance_px : float
        How far off a pair may lie, in pixels of the training.
    enforced : bool
        Whether to refuse misaligned pairs, or only tell of them.
    measured : bool
        Whether a model is measured on them, not taught by them.

    Raises
    ------
    ManifestError
        With a problem for each pair that is clearly misaligned.
    """
    found = alignments(pairs, parts)
    wrong = [pair for pair in pairs if is_off(found[pair.name], tolerance_px)]
    if wrong and enforced:
        remedy = _REMEDY_MEASURED if measured else _REMEDY
        raise ManifestError([Problem(pair.row, "moving", found[pair.name].sentence, remedy) for pair in wrong])
    return found


def _hull(pair: TrainingPair, parts: Iterable[Part]) -> Box:
    """Return the smallest box around a pair's parts."""
    boxes = np.array([part.box for part in parts if part.pair is pair])
    return Box(*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())


@dataclass(frozen=True, eq=False)
class _Group:
    """Tiles of one ninth of the part: their mean place in pixels from its middle, and their spectra."""

    place: NDArray[np.float64]
    spectra: list[tuple[Spectra, Spectra]]


class _Tiles:
    """Some tiles of a part with tissue on both slides, in groups."""

    def __init__(self, pair: TrainingPair, box: Box, seed: int) -> None:
        slides = pair.fixed, pair.moving
        self.mpp = max(slide.working.mpp for slide in slides)
        self._readers = [CropReader(slide, box, _GREY, self.mpp) for slide in slides]
        corners = np.array([reader.grid.corners_um()[[0, 3]] for reader in self._readers])
        low, high = corners[:, 0].max(axis=0), corners[:, 1].min(axis=0)
        self.size_px = (high - low) / self.mpp
        self._middle = (low + high) / 2
        self.groups = self._groups(seed, on_tissue=True)
        if sum(len(group.spectra) for group in self.groups) < _FEWEST_TILES:  # what counts as tissue is too little
            self.groups = self._groups(seed, on_tissue=False)

    def _groups(self, seed: int, *, on_tissue: bool) -> list[_Group]:
        rng = np.random.default_rng(seed)
        groups = (self._group(rng.permutation(ninth), on_tissue=on_tissue) for ninth in self._ninths() if len(ninth))
        return [group for group in groups if group.spectra]

    def _ninths(self) -> list[NDArray[np.float64]]:
        """Return the tiles' centres in pixels from the middle, those of each ninth by themselves."""
        counts = np.floor((self.size_px - 2 * REACH) / _STEP).astype(int).clip(1)
        x, y = ((np.arange(n) - (n - 1) / 2) * _STEP for n in counts)
        ninths = product(np.array_split(y, _GROUPS), np.array_split(x, _GROUPS))
        return [np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2) for rows, columns in ninths]

    def _group(self, centres: NDArray[np.float64], *, on_tissue: bool) -> _Group:
        used: list[NDArray[np.float64]] = []
        spectra: list[tuple[Spectra, Spectra]] = []
        for centre in centres:
            pose = Pose(*(self._middle + centre * self.mpp).tolist())
            masks = [reader.valid(pose, SIDE) for reader in self._readers]
            if on_tissue:
                masks = [m & reader.tissue_at(pose, SIDE) for m, reader in zip(masks, self._readers, strict=True)]
            if len(used) < _TILES and min(mask.mean() for mask in masks) >= _LEAST_TISSUE:
                fixed, moving = (reader.read(pose, SIDE)[0] for reader in self._readers)
                used.append(centre)
                spectra.append((fixed_spectra(fixed, masks[0]), moving_spectra(moving, masks[1])))
        return _Group(np.mean(used, axis=0) if used else np.zeros(2), spectra)


def _from_tiles(pair: TrainingPair, tiles: _Tiles, peak: Peak, word: str = "") -> Alignment:
    """Fit a turn and a shift to the peaks of the groups, where enough of them agree; else take the shift of all."""
    peaks = [find_peak(group.spectra) for group in tiles.groups]
    clear = [
        (group.place, each) for group, each in zip(tiles.groups, peaks, strict=True) if each.z >= _CLEAR and each.inside
    ]
    if len(clear) < _FEWEST_GROUPS:
        return _alignment(pair, tiles, np.array([peak.x, peak.y]), 0.0, peak.z, word)
    places, shifts = np.array([place for place, _ in clear]), np.array([each[:2] for _, each in clear])
    agreeing = _most_agreeing(places, shifts)
    if agreeing.sum() < _FEWEST_GROUPS:
        return _alignment(pair, tiles, np.array([peak.x, peak.y]), 0.0, peak.z, word)
    at_middle, angle = _turn_and_shift(places[agreeing], shifts[agreeing])
    return _alignment(pair, tiles, at_middle, angle, peak.z, word)


def _most_agreeing(places: NDArray[np.float64], shifts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which groups agree with the turn and shift, of those that two of them say, that most agree with.

    A group may be clear and wrong, where it sees little but the border of the tissue.
    """
    best = np.zeros(len(places), dtype=bool)
    for two in combinations(range(len(places)), 2):
        at_middle, angle = _turn_and_shift(places[list(two)], shifts[list(two)])
        said = at_middle + angle * np.stack([-places[:, 1], places[:, 0]], axis=1)
        agreeing = np.linalg.norm(shifts - said, axis=1) <= _AGREEING_PX
        best = max(best, agreeing, key=np.count_nonzero)
    return best


def _turn_and_shift(places: NDArray[np.float64], shifts: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the shift at the part's middle and the small turn in radians, of least squares."""
    centre, mean = places.mean(axis=0), shifts.mean(axis=0)
    arms, moves = places - centre, shifts - mean
    angle = float((arms[:, 0] * moves[:, 1] - arms[:, 1] * moves[:, 0]).sum() / (arms**2).sum())
    return mean - angle * np.array([-centre[1], centre[0]]), angle


def _alignment(
    pair: TrainingPair, tiles: _Tiles, shift: NDArray[np.float64], angle: float, z: float, word: str = ""
) -> Alignment:
    """Put a shift in pixels and a small turn in radians into words."""
    length = float(np.hypot(*shift))
    off = float(np.sqrt(length**2 + angle**2 * (tiles.size_px**2).sum() / 12))  # second moment of a rectangle
    degrees = float(np.degrees(angle))
    sentence = f"pair {pair.name}: the moving image lies {word}{length * tiles.mpp:.1f} µm ({length:.1f} px) off"
    if length >= 1:
        sentence += f", mostly {_direction(shift)}"
    sentence += f", and is turned by {degrees:.1f} degrees" if abs(degrees) >= 0.05 else ""
    return Alignment(length * tiles.mpp, z, known=True, angle_deg=degrees, off_px=off, sentence=sentence)


def _direction(shift: NDArray[np.float64]) -> str:
    x, y = shift
    if abs(x) >= abs(y):
        return "to the right" if x > 0 else "to the left"
    return "downwards" if y > 0 else "upwards"
