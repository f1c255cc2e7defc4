"""What a diagnosis found, as numbers, as JSON, and in plain sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.training.collapse import Spectrum  # noqa: TC001  dataclass fields keep their types readable at run time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

JOINT = "both"
GOOD, FAIR = 0.9, 0.7
"""Shares from which on a model can be relied on, and from which on it helps; docs/training.md names them too."""
_USED = 2.0  # effective rank below which a space has collapsed
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, 10th and 90th percentile over places."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Spread:
        """Return that of some values, at least one."""
        low, high = np.percentile(values, (10, 90))
        return cls(float(values.mean()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Turning:
    """How well the representation of a modality turns with the image.

    Attributes
    ----------
    modality : str
        Which.
    angles : tuple of int
        Degrees.
    turned, mirrored : tuple of Spread
        Correlation with the upright representation at each angle, of turned images and of mirrored and turned ones.
    """

    modality: str
    angles: tuple[int, ...]
    turned: tuple[Spread, ...]
    mirrored: tuple[Spread, ...]

    def lowest(self, *, mirrored: bool = False) -> tuple[float, int]:
        """Return the lowest mean correlation and its angle."""
        spreads = self.mirrored if mirrored else self.turned
        return min((spread.mean, angle) for spread, angle in zip(spreads, self.angles, strict=True))


@dataclass(frozen=True, slots=True)
class Partners:
    """Correlations of the CoMIRs of true and of wrong pairs of crops, one of each pair read turned.

    Attributes
    ----------
    crops : int
        Of each modality.
    retrieved : float
        Share of crops whose partner correlates best with them.
    auc : float
        Probability that a true pair correlates better than a wrong one.
    true, wrong : tuple of float
        The correlations.
    """

    crops: int
    retrieved: float
    auc: float
    true: tuple[float, ...]
    wrong: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """A space of features: the outputs, or the bottleneck.

    Attributes
    ----------
    name : {"output", "bottleneck"}
        Which.
    features : str
        What the vectors of the spectra are.
    spectra : dict
        Spectrum of each modality, and of ``JOINT``.
    distance : str
        Between the crops of the map.
    points : dict
        Place of each crop on the map by modality; partners have one index.
    stress : float
        How far the map's distances are from the true ones; 0 is perfect.
    """

    name: str
    features: str
    spectra: dict[str, Spectrum]
    distance: str
    points: dict[str, tuple[tuple[float, float], ...]]
    stress: float


@dataclass(frozen=True, slots=True)
class Stability:
    """Correlation, without its sign, of a modality's CoMIRs with those that another model makes of the same crops."""

    other: str
    modality: str
    correlation: Spread


@dataclass(frozen=True, slots=True)
class Success:
    """Share of known rigid transforms that were found to 2 % of the side, at each of the four levels."""

    levels: tuple[float, ...]
    fields: int
    side: int

    @property
    def mean(self) -> float:
        """Over all levels."""
        return float(np.mean(self.levels))


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that was found of a model.

    Attributes
    ----------
    model, weights_sha256 : str
        Which.
    pairs : tuple of str
        Names of the pairs that it was measured on.
    mpp : float
        Pixel size in µm.
    crop : int
        Side of the crops in pixels.
    seed : int
        Of the places.
    success, turning, partners, spaces, stability
        See there; stability is empty where no other model was given.
    """

    model: str
    weights_sha256: str
    pairs: tuple[str, ...]
    mpp: float
    crop: int
    seed: int
    success: Success
    turning: tuple[Turning, ...]
    partners: Partners
    spaces: tuple[Space, ...]
    stability: tuple[Stability, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, with the ranks of the spectra and the findings; no number is NaN or infinite."""
        found: dict[str, Any] = asdict(self)
        for space, written in zip(self.spaces, found["spaces"], strict=True):
            for name, spectrum in space.spectra.items():
                written["spectra"][name] |= {
                    "effective_rank": spectrum.effective_rank,
                    "stable_rank": spectrum.stable_rank,
                    "collapsed": spectrum.collapsed,
                }
        rounded: dict[str, Any] = _rounded(found | {"findings": list(self.findings)})
        return rounded

    @property
    def findings(self) -> tuple[str, ...]:
        """What is good and what is bad, a sentence each."""
        return (
            *_of_success(self.success),
            *(sentence for turning in self.turning for sentence in _of_turning(turning)),
            *_of_partners(self.partners),
            *(sentence for space in self.spaces for sentence in _of_space(space)),
            *_of_stability(self.stability),
        )


def _of_success(success: Success) -> Iterator[str]:
    levels = ", ".join(f"{share:.0%}" for share in success.levels)
    word = "Good" if success.mean >= GOOD else "Fair" if success.mean >= FAIR else "Bad"
    yield (
        f"{word}: known rigid transforms are found again in {success.mean:.0%} of {success.fields} crops of "
        f"{success.side} pixels ({levels} at turns up to 5°, 10°, 15° and 20°)."
    )


def _of_turning(turning: Turning) -> Iterator[str]:
    for mirrored, verb, how, remedy in (
        (False, "turn", "turned", "symmetry c4 or d4"),
        (True, "mirror", "mirrored and turned", "symmetry d4"),
    ):
        lowest, angle = turning.lowest(mirrored=mirrored)
        name, where = (
            f"the representation of {turning.modality}",
            f"(lowest correlation {lowest:.2f}, {how} by {angle}°)",
        )
        if lowest >= GOOD:
            yield f"Good: {name} {verb}s with the image {where}."
        elif lowest >= FAIR:
            yield f"Fair: {name} {verb}s with the image, but not closely {where}."
        else:
            yield f"Bad: {name} does not {verb} with the image {where}; training with {remedy} mends it."


def _of_partners(partners: Partners) -> Iterator[str]:
    word = "Good" if partners.retrieved >= GOOD else "Fair" if partners.retrieved >= FAIR else "Bad"
    yield (
        f"{word}: {partners.retrieved:.0%} of {partners.crops} crops correlate best with their partner; a true pair "
        f"correlates better than a wrong one with probability {partners.auc:.3f} (means "
        f"{np.mean(partners.true):.2f} and {np.mean(partners.wrong):.2f})."
    )


def _of_space(space: Space) -> Iterator[str]:
    for name, spectrum in space.spectra.items():
        if name == JOINT:
            continue
        used = f"effective rank {spectrum.effective_rank:.1f} of {spectrum.dimensions}"
        # So many are zero for want of samples alone.
        unused = spectrum.collapsed - max(0, spectrum.dimensions - spectrum.samples + 1)
        if spectrum.effective_rank < _USED and space.name == "bottleneck":
            yield f"Note: the bottleneck of {name} has collapsed: {used}; it is the CoMIRs that registration sees."
        elif spectrum.effective_rank < _USED:
            yield f"Bad: the {space.name} of {name} has collapsed: {used}."
        elif unused > 0:
            yield f"Fair: the {space.name} of {name} has partly collapsed: {used}; unused dimensions: {unused}."
        else:
            yield f"Good: the {space.name} of {name} has not collapsed: {used}."


def _of_stability(stability: tuple[Stability, ...]) -> Iterator[str]:
    if not stability:
        yield (
            "Not measured: stability over seeds. Train again with another seed and give that model as --against MODEL."
        )
    for each in stability:
        yield (
            f"The CoMIRs of {each.modality} correlate {each.correlation.mean:.2f} on average with those of "
            f"{each.other}, without regard to the sign (four in five from {each.correlation.low:.2f} to "
            f"{each.correlation.high:.2f})."
        )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
