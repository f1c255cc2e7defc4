"""The verdict: numbers in, accept, review or reject with its reasons out.

A pair is rejected if its transform cannot be true, or if nothing speaks for it. It is accepted if the view that gave
the transform is convincingly alike where no fit has looked, and nothing speaks against it. Everything between is for a
person to review.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.verdict import Judgement, Verdict
from comir_batch.quality.evidence import VIEW_NAMES, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comir_batch.core.config import JudgeConfig
    from comir_batch.quality.evidence import Evidence
    from comir_batch.quality.plausibility import Folding
    from comir_batch.quality.points import BlockCounts
    from comir_batch.quality.similarity import Similarity

_AS_GOOD = 0.9  # of the similarity before, for a pair that was aligned from the start
_UNKNOWN = (
    "it is not known how alike wrong alignments look: too little tissue lies on the other slide's, or it is too narrow"
)


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
        yield f"{_UNKNOWN} ({VIEW_NAMES[evidence.registered_from]}, which gave the transform)"
    elif not z >= config.accept_z:
        yield (
            f"the similarity is weak: z {_signed(z)}, {config.accept_z:.3g} is asked for of the "
            f"{VIEW_NAMES[evidence.registered_from]}, which gave the transform"
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
        surer = f"that of the {VIEW_NAMES[evidence.registered_from]} tells more on tiles that neither saw"
        yield f"a fit of the {evidence.other_name} was set aside: {surer}"
    yield _story(VIEW_NAMES["comir"], evidence.comir) if evidence.comir else "no representations were used"
    yield _story(VIEW_NAMES["raw"], evidence.raw)
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
