"""What a verdict rests on, and its numbers by the names that tables and reports have for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from comir_batch.quality.plausibility import Folding, Shape
    from comir_batch.quality.points import BlockCounts, InverseError, Landmarks, TileError
    from comir_batch.quality.similarity import Similarity

VIEW_NAMES = {"comir": "representations", "raw": "raw images"}
"""What users know the views by."""
_VIEW_NUMBERS = ("before", "after", "z", "z_before", "share_improved", "tiles")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that a verdict rests on.

    Attributes
    ----------
    registered_from : {"comir", "raw"}
        The view that gave the transform.
    shape : Shape
        Of the transform's affine part.
    folding : Folding
        Of the whole transform on fixed tissue.
    overlap : float
        Share of the smaller tissue on the other slide's tissue.
    raw : Similarity
        Of the raw images at the found transform, on held-out tiles.
    comir : Similarity or None
        Of the representations; None without a model.
    model : str
        Its name; empty for none.
    model_slides : int
        Number of slides that it learnt from; 0 without a model.
    disagreement_um : float or None
        Median distance between what CoMIR and raw images found; None if only one of them found anything.
    failed : tuple of str
        Why elastix failed, for each attempt before the one that gave the transform.
    fitted : str
        What that one was.
    landmarks : Landmarks or None
        What they say, where there are any.
    tile_error : TileError or None
        How far held-out tiles lie from where they fit best; None if that is clear for too few of them.
    margin_nats : float or None
        By how many nats the start was likelier than any other one that was found; None for one that the user gave.
    inverse : InverseError or None
        How far fits from fixed to moving and back are from each other's inverse; None without one of them.
    backward_error : str
        Why the fit back failed; empty if it did not.
    blocks : BlockCounts or None
        What became of the blocks that refined the transform; None where none were asked for.
    set_aside : bool
        Whether the other view's fit was made first, and set aside since this view's tells more.
    other_error : str
        Why the other view's fit to compare with failed; empty if it did not.
    """

    registered_from: Literal["comir", "raw"]
    shape: Shape
    folding: Folding
    overlap: float
    raw: Similarity
    comir: Similarity | None = None
    model: str = ""
    model_slides: int = 0
    disagreement_um: float | None = None
    failed: tuple[str, ...] = ()
    fitted: str = "as configured"
    landmarks: Landmarks | None = None
    tile_error: TileError | None = None
    margin_nats: float | None = None
    inverse: InverseError | None = None
    backward_error: str = ""
    blocks: BlockCounts | None = None
    set_aside: bool = False
    other_error: str = ""

    @property
    def decisive(self) -> Similarity:
        """The similarity of the view that gave the transform."""
        return self.comir if self.registered_from == "comir" and self.comir else self.raw

    @property
    def other(self) -> Similarity | None:
        """The similarity of the view that did not; None without a model."""
        return self.raw if self.decisive is self.comir else self.comir

    @property
    def other_name(self) -> str:
        """What users know the view by that did not give the transform."""
        return VIEW_NAMES["raw" if self.registered_from == "comir" else "comir"]

    @property
    def best_z(self) -> float | None:
        """The highest significance of any view; None where it is known of none."""
        known = [view.z for view in (self.raw, self.comir) if view and view.z is not None]
        return max(known, default=None)


def metrics(evidence: Evidence) -> dict[str, float | str | None]:
    """Return the numbers by stable names, the same for every pair; None where there is no such number."""
    views = {"comir": evidence.comir, "raw": evidence.raw}
    similarities = {
        f"{name}_{number}": getattr(view, number) if view else None
        for name, view in views.items()
        for number in _VIEW_NUMBERS
    }
    landmarks, error, blocks = evidence.landmarks, evidence.tile_error, evidence.blocks
    inverse = evidence.inverse
    return {
        "registered_from": evidence.registered_from,
        "tile_error_median_um": error.median_um if error else None,
        "tile_error_p95_um": error.p95_um if error else None,
        "tiles_located": error.located if error else None,
        "blocks_tried": blocks.tried if blocks else None,
        "blocks_used": blocks.used if blocks else None,
        "model": evidence.model or None,
        "model_slides": evidence.model_slides or None,
        **similarities,
        "disagreement_um": evidence.disagreement_um,
        "start_margin_nats": evidence.margin_nats,
        "inverse_error_median_um": inverse.median_um if inverse else None,
        "inverse_error_p95_um": inverse.p95_um if inverse else None,
        **asdict(evidence.shape),
        "mirrored": "yes" if evidence.shape.mirrored else "no",
        "folding": evidence.folding.share,
        "jacobian_min": evidence.folding.jacobian_min,
        "jacobian_max": evidence.folding.jacobian_max,
        "jacobian_p1": evidence.folding.jacobian_p1,
        "jacobian_p99": evidence.folding.jacobian_p99,
        "overlap": evidence.overlap,
        "tre_before_median_um": landmarks.before.median_um if landmarks else None,
        "tre_median_um": landmarks.after.median_um if landmarks else None,
        "tre_p95_um": landmarks.after.p95_um if landmarks else None,
        "rtre_median": landmarks.rtre_median if landmarks else None,
        "landmarks_improved": landmarks.improved if landmarks else None,
    }
