"""The verdict: numbers in, accept, review or reject with its reasons out.

A pair is rejected if its transform cannot be true, or if nothing speaks for it. It is accepted if the view that gave
the transform is convincingly alike where no fit has looked, and nothing speaks against it. Everything between is for a
person to review.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from comir_batch.core.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comir_batch.core.config import JudgeConfig
    from comir_batch.quality.plausibility import Folding, Shape
    from comir_batch.quality.points import BlockCounts, InverseError, Landmarks, TileError
    from comir_batch.quality.similarity import Similarity

_AS_GOOD = 0.9  # of the similarity before, for a pair that was aligned from the start
_UNKNOWN = (
    "it is not known how alike wrong alignments look: too little tissue lies on the other slide's, or it is too narrow"
)
_VIEW_NAMES = {"comir": "representations", "raw": "raw images"}
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
        return _VIEW_NAMES["raw" if self.registered_from == "comir" else "comir"]

    @property
    def best_z(self) -> float | None:
        """The highest significance of any view; None where it is known of none."""
        known = [view.z for view in (self.raw, self.comir) if view and view.z is not None]
        return max(known, default=None)


def judge(evidence: Evidence, config: JudgeConfig) -> Judgement:
    """Return the verdict on a pair, with a sentence for each reason and the numbers by their column names.

    Parameters
    ----------
    evidence : Evidence
        Of one pair.
    config : JudgeConfig
        Thresholds.
    """
    against = (*_implausible(evidence, config), *_unproven(evidence, config))
    doubts = () if against else tuple(_doubts(evidence, config))
    verdict = Verdict.REJECT if against else Verdict.REVIEW if doubts else Verdict.ACCEPT
    return Judgement(verdict, (*against, *doubts, *_findings(evidence, config)), metrics(evidence))


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


def _implausible(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    shape, folding = evidence.shape, evidence.folding
    if not (shape.scale_max <= config.max_scale and shape.scale_min >= 1 / config.max_scale):
        yield (
            f"the transform scales the tissue by {shape.scale_min:.2f} to {shape.scale_max:.2f}; "
            f"{1 / config.max_scale:.2f} to {config.max_scale:.2f} is credible (judge.max_scale; check the pixel sizes)"
        )
    if not abs(shape.shear) <= config.max_shear:
        yield f"the transform shears the tissue by {abs(shape.shear):.2f}; at most {config.max_shear:.2f} is credible"
    if not folding.share <= config.max_folding:
        yield f"the transform folds {folding.share:.2%} of the tissue; at most {config.max_folding:.2%} is credible"
    if not evidence.overlap >= config.min_overlap:
        yield (
            f"only {evidence.overlap:.0%} of the smaller tissue lies on the other slide's tissue; "
            f"at least {config.min_overlap:.0%} is credible"
        )


def _unproven(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    if evidence.best_z is None:
        yield _UNKNOWN
    elif not evidence.best_z >= config.review_z:
        yield (
            "the images are no more alike than in wrong alignments "
            f"(z {_signed(evidence.best_z)}; {config.review_z:.3g} is asked for)"
        )
    marks = evidence.landmarks
    if marks and marks.after.median_um > max(marks.before.median_um, config.max_disagreement_um):
        yield (
            f"the landmarks lie further apart than before: median {marks.after.median_um:.1f} µm, "
            f"before {marks.before.median_um:.1f} µm"
        )


def _doubts(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    decisive = evidence.decisive
    if evidence.failed:
        yield f"elastix failed as configured ({evidence.failed[0]}); the pair was fitted {evidence.fitted}"
    yield from _unrefined(evidence.blocks, config)
    yield from _weak(evidence, config)
    if evidence.margin_nats is not None and not evidence.margin_nats >= config.min_margin_nats:
        yield (
            f"another start explains the images nearly as well, by {evidence.margin_nats:.1f} nats less; "
            f"{config.min_margin_nats:.3g} are asked for (judge.min_margin_nats)"
        )
    yield from _strained(evidence.folding, config)
    if decisive.tiles < config.min_tiles:
        yield f"only {decisive.tiles} tiles were left to judge by; {config.min_tiles} are asked for"
    if not _improved(decisive, config):
        yield (
            f"{decisive.share_improved:.0%} of the tiles look better than before; "
            f"{config.min_gain:.0%} are asked for (judge.min_gain)"
        )
    yield from _apart(evidence, config)


def _unrefined(blocks: BlockCounts | None, config: JudgeConfig) -> Iterator[str]:
    if blocks and not (blocks.refined and blocks.used >= config.min_blocks * blocks.tried):
        done = "was refined all the same" if blocks.refined else "was not refined"
        yield (
            f"{blocks.used} of {blocks.tried} blocks were of use, and the transform {done}; "
            f"{config.min_blocks:.0%} are asked for (judge.min_blocks), which agree and do not fold"
        )


def _strained(folding: Folding, config: JudgeConfig) -> Iterator[str]:
    most = config.max_area_change
    if not (folding.jacobian_p1 >= 1 / most and folding.jacobian_p99 <= most):
        yield (
            f"the transform changes areas locally by factors of {folding.jacobian_p1:.2f} to "
            f"{folding.jacobian_p99:.2f} (percentiles 1 and 99); "
            f"{1 / most:.2f} to {most:.2f} is allowed (judge.max_area_change)"
        )


def _apart(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    tiles = evidence.tile_error
    if tiles and not tiles.median_px <= config.max_tile_error_px:
        yield (
            f"the held-out tiles lie {tiles.median_um:.1f} µm from where they fit best (median of {tiles.located}): "
            f"{tiles.median_px:.1f} pixels of the registered images, at most {config.max_tile_error_px:.1f} are "
            "allowed (judge.max_tile_error_px)"
        )
    distance = evidence.disagreement_um
    if distance is not None and not distance <= config.max_disagreement_um:
        yield (
            f"representations and raw images disagree by {distance:.1f} µm (median); "
            f"at most {config.max_disagreement_um:.1f} µm is allowed"
        )
    if evidence.other_error:
        yield (
            f"the fit of the {evidence.other_name}, which this one is compared with, failed ({evidence.other_error})"
        )
    if evidence.backward_error:
        yield f"the fit from the moving slide back to the fixed one failed ({evidence.backward_error})"
    inverse = evidence.inverse
    if inverse and not inverse.median_px <= config.max_inverse_error_px:
        yield (
            f"to the moving slide and back, the tissue comes to lie {inverse.median_um:.1f} µm from where it was "
            f"(median): {inverse.median_px:.1f} pixels of the registered images, at most "
            f"{config.max_inverse_error_px:.1f} are allowed (judge.max_inverse_error_px)"
        )
    error = evidence.landmarks.after if evidence.landmarks else None
    if error and not error.median_um <= config.max_disagreement_um:
        yield (
            f"the landmarks lie {error.median_um:.1f} µm apart (median); "
            f"at most {config.max_disagreement_um:.1f} µm is allowed (judge.max_disagreement_um)"
        )


def _weak(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    """Yield why the similarity does not suffice: a model of one slide counts only if the raw images agree with it."""
    z = evidence.decisive.z
    if z is None:
        yield f"{_UNKNOWN} ({_VIEW_NAMES[evidence.registered_from]}, which gave the transform)"
    elif not z >= config.accept_z:
        yield (
            f"the similarity is weak: z {_signed(z)}, {config.accept_z:.3g} is asked for of the "
            f"{_VIEW_NAMES[evidence.registered_from]}, which gave the transform"
        )
    elif _unconfirmed(evidence, config):
        yield (
            f"the model {evidence.model} learnt from one slide, and the raw images do not confirm it "
            f"(z {_signed(evidence.raw.z)}; {config.review_z:.3g} and agreement within "
            f"{config.max_disagreement_um:.1f} µm are asked for)"
        )


def _unconfirmed(evidence: Evidence, config: JudgeConfig) -> bool:
    by_raw = _reaches(evidence.raw, config.accept_z) or _raw_agrees(evidence, config)
    return evidence.model_slides == 1 and not by_raw


def _raw_agrees(evidence: Evidence, config: JudgeConfig) -> bool:
    distance = evidence.disagreement_um
    near = distance is not None and distance <= config.max_disagreement_um
    return near and _reaches(evidence.raw, config.review_z)


def _reaches(view: Similarity, least: float) -> bool:
    return view.z is not None and view.z >= least


def _improved(view: Similarity, config: JudgeConfig) -> bool:
    """Tell whether the view looks better than before, or as good if it was aligned from the start."""
    aligned_before = view.z_before is not None and view.z_before >= config.accept_z
    return view.share_improved >= config.min_gain or (aligned_before and view.after >= _AS_GOOD * view.before)


def _findings(evidence: Evidence, config: JudgeConfig) -> Iterator[str]:
    if evidence.registered_from == "comir":
        plural = "" if evidence.model_slides == 1 else "s"
        yield f"registered from representations by {evidence.model} (learnt from {evidence.model_slides} slide{plural})"
    else:
        yield "registered from the raw images by mutual information"
    if evidence.set_aside:
        surer = f"that of the {_VIEW_NAMES[evidence.registered_from]} tells more on tiles that neither saw"
        yield f"a fit of the {evidence.other_name} was set aside: {surer}"
    yield _story(_VIEW_NAMES["comir"], evidence.comir) if evidence.comir else "no representations were used"
    yield _story(_VIEW_NAMES["raw"], evidence.raw)
    if evidence.tile_error:
        error = evidence.tile_error
        yield (
            f"estimated error {error.median_um:.1f} µm (median), 95 % within {error.p95_um:.1f} µm: so far lie "
            f"{error.located} of {error.tried} held-out tiles from where they fit best"
        )
    else:
        yield (
            f"there is no estimated error: too few of the {evidence.decisive.tiles} held-out tiles have a clear place "
            "where they fit best"
        )
    if evidence.blocks and evidence.blocks.refined:
        blocks = evidence.blocks
        yield (
            f"refined by {blocks.used} of {blocks.tried} blocks, moved by {blocks.median_um:.2f} µm (median); "
            f"{blocks.failed} were not found, {blocks.outliers} left out as outliers"
        )
    review_z = config.review_z
    if evidence.other and not _reaches(evidence.other, review_z) and _reaches(evidence.decisive, review_z):
        yield f"the {evidence.other_name} by themselves do not speak for the transform (z {_signed(evidence.other.z)})"
    if evidence.shape.mirrored:
        yield "the moving slide is mirrored"
    if evidence.landmarks:
        marks = evidence.landmarks.after
        yield (
            f"{marks.count} landmarks lie {marks.median_um:.1f} µm apart (median), 95 % within {marks.p95_um:.1f} µm; "
            f"{evidence.landmarks.improved:.0%} lie nearer than at the start"
            + ("; the fit heeded them" if evidence.landmarks.fitted else "")
        )


def _story(name: str, view: Similarity) -> str:
    moved = "rose" if view.after > view.before else "fell"
    return (
        f"{name}: similarity on {view.tiles} tiles not used in the fit {moved} from {view.before:.2f} to "
        f"{view.after:.2f} (z {_signed(view.z)} against wrong alignments)"
    )


def _signed(z: float | None) -> str:
    if z is None:
        return "unknown"
    return f"{z:.1f}" if abs(z) < 10 else f"{z:.0f}"
