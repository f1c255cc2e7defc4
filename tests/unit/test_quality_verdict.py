"""The verdict: each rule by itself, and whole stories from made-up evidence."""

from dataclasses import replace

import numpy as np
import pytest

from comir_batch.core.config import JudgeConfig
from comir_batch.core.verdict import Verdict
from comir_batch.quality.evidence import Evidence, metrics
from comir_batch.quality.plausibility import Folding, Shape
from comir_batch.quality.points import BlockCounts, InverseError, Landmarks, PointsError, TileError
from comir_batch.quality.similarity import Similarity
from comir_batch.quality.verdict import judge

CONFIG = JudgeConfig()
COMIR = Similarity("ncc", 112, before=0.02, after=0.61, z_before=0.3, z=23.0, share_improved=0.95)
RAW = Similarity("mi", 110, before=0.05, after=0.11, z_before=0.1, z=11.0, share_improved=0.8)
GOOD = Evidence(
    registered_from="comir",
    shape=Shape(0.99, 1.02, 0.01, mirrored=False, rotation_deg=12.0),
    folding=Folding(0.0, 0.8, 1.2, 0.9, 1.1),
    overlap=0.93,
    raw=RAW,
    comir=COMIR,
    model="dapi-tritc",
    model_slides=5,
    disagreement_um=4.0,
)
RAW_ONLY = replace(GOOD, registered_from="raw", comir=None, model="", model_slides=0, disagreement_um=None)


def verdict(evidence):
    return judge(evidence, CONFIG).verdict


def reasons(evidence):
    return " | ".join(judge(evidence, CONFIG).reasons)


def test_good_evidence_is_accepted_with_its_numbers():
    found = judge(GOOD, CONFIG)
    assert found.verdict is Verdict.ACCEPT
    assert (
        "representations: similarity on 112 tiles not used in the fit rose from 0.02 to 0.61 "
        "(z 23 against wrong alignments)"
    ) in found.reasons


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"shape": replace(GOOD.shape, scale_max=1.6)}, "scales"),
        ({"shape": replace(GOOD.shape, scale_min=0.5)}, "scales"),
        ({"shape": replace(GOOD.shape, shear=-0.4)}, "shears"),
        ({"folding": Folding(0.02, -1.0, 3.0, -0.1, 2.0)}, "folds 2.00% of the tissue"),
        ({"overlap": 0.1}, "only 10% of the smaller tissue"),
        ({"shape": replace(GOOD.shape, scale_max=float("nan"))}, "scales"),
    ],
)
def test_the_impossible_is_rejected_however_alike_it_looks(change, word):
    found = judge(replace(GOOD, **change), CONFIG)
    assert found.verdict is Verdict.REJECT
    assert word in found.reasons[0]


def test_what_is_no_more_alike_than_wrong_alignments_is_rejected():
    evidence = replace(GOOD, raw=replace(RAW, z=1.2), comir=replace(COMIR, z=2.5))
    assert verdict(evidence) is Verdict.REJECT
    assert "no more alike than in wrong alignments (z 2.5; 4 is asked for)" in reasons(evidence)
    assert verdict(replace(evidence, comir=replace(COMIR, z=float("nan")))) is Verdict.REJECT


def test_a_significance_that_is_not_known_is_never_accepted():
    unknown = replace(COMIR, z=None, z_before=None)
    assert verdict(replace(GOOD, comir=unknown)) is Verdict.REVIEW  # the raw images speak for it
    assert "it is not known how alike wrong alignments look" in reasons(replace(GOOD, comir=unknown))
    nothing = replace(RAW_ONLY, raw=replace(RAW, z=None, z_before=None))
    assert verdict(nothing) is Verdict.REJECT
    assert "it is not known how alike wrong alignments look" in reasons(nothing)
    assert "(z unknown against wrong alignments)" in reasons(nothing)
    assert metrics(nothing)["raw_z"] is None


def test_between_reject_and_accept_is_review():
    evidence = replace(GOOD, raw=replace(RAW, z=5.0), comir=replace(COMIR, z=6.0))
    assert verdict(evidence) is Verdict.REVIEW
    assert "the similarity is weak: z 6.0, 8 is asked for" in reasons(evidence)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Verdict.ACCEPT),
        ({"raw": replace(RAW, z=4.5)}, Verdict.ACCEPT),
        ({"raw": replace(RAW, z=3.0)}, Verdict.REVIEW),
        ({"raw": replace(RAW, z=4.5), "disagreement_um": None}, Verdict.REVIEW),
        ({"disagreement_um": 25.0}, Verdict.REVIEW),
    ],
)
def test_a_model_of_one_slide_needs_the_raw_images(change, expected):
    assert verdict(replace(GOOD, model_slides=1, **change)) is expected


def test_a_model_of_many_slides_does_not():
    assert verdict(replace(GOOD, raw=replace(RAW, z=0.5), disagreement_um=None)) is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("source", "raw_z", "comir_z", "expected", "word"),
    [
        ("comir", 12.0, -2.0, Verdict.REVIEW, "weak: z -2.0, 8 is asked for of the representations, which gave"),
        ("raw", 0.0, 30.0, Verdict.REVIEW, "weak: z 0.0, 8 is asked for of the raw images, which gave"),
        ("comir", 12.0, float("nan"), Verdict.REVIEW, "weak: z nan"),
        (
            "raw",
            12.0,
            -2.0,
            Verdict.ACCEPT,
            "the representations by themselves do not speak for the transform (z -2.0)",
        ),
        ("comir", 0.5, 23.0, Verdict.ACCEPT, "the raw images by themselves do not speak for the transform (z 0.5)"),
    ],
)
def test_the_view_that_gave_the_transform_decides(source, raw_z, comir_z, expected, word):
    views = {"raw": replace(RAW, z=raw_z), "comir": replace(COMIR, z=comir_z)}
    evidence = replace(GOOD, registered_from=source, **views)
    assert verdict(evidence) is expected
    assert word in reasons(evidence)


def test_views_that_agree_are_not_said_to_contradict():
    assert "by themselves" not in reasons(GOOD)
    assert "by themselves" not in reasons(RAW_ONLY)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 5.0, Verdict.ACCEPT),
        (0.1, 1.2, Verdict.REVIEW),
        (0.8, 5.1, Verdict.REVIEW),
        (float("nan"), float("nan"), Verdict.REVIEW),
    ],
)
def test_a_strained_transform_is_for_review(low, high, expected):
    evidence = replace(GOOD, folding=Folding(0.0, -1.0, 9.0, low, high))
    assert verdict(evidence) is expected
    assert ("judge.max_area_change" in reasons(evidence)) is (expected is Verdict.REVIEW)


def test_a_fit_that_elastix_did_not_make_as_configured_is_for_review():
    tried_again = replace(GOOD, failed=("elastix failed: no samples",), fitted="without B-spline")
    assert verdict(tried_again) is Verdict.REVIEW
    assert "as configured (elastix failed: no samples); the pair was fitted without B-spline" in reasons(tried_again)


def test_disagreement_is_for_review():
    assert verdict(replace(GOOD, disagreement_um=30.0)) is Verdict.REVIEW
    assert "disagree by 30.0 µm" in reasons(replace(GOOD, disagreement_um=30.0))


def test_tiles_that_fit_better_elsewhere_are_for_review():
    near = replace(GOOD, tile_error=TileError(112, 91, median_um=0.84, p95_um=2.1, median_px=0.9))
    assert verdict(near) is Verdict.ACCEPT
    assert "estimated error 0.8 µm (median), 95 % within 2.1 µm: so far lie 91 of 112 held-out tiles" in reasons(near)
    far = replace(GOOD, tile_error=TileError(112, 40, median_um=6.5, p95_um=11.0, median_px=7.1))
    assert verdict(far) is Verdict.REVIEW
    assert "lie 6.5 µm from where they fit best (median of 40): 7.1 pixels" in reasons(far)


def test_a_start_that_another_one_nearly_equals_is_for_review():
    assert verdict(replace(GOOD, margin_nats=40.0)) is Verdict.ACCEPT
    assert verdict(replace(GOOD, margin_nats=3.2)) is Verdict.REVIEW
    assert "another start explains the images nearly as well, by 3.2 nats less" in reasons(
        replace(GOOD, margin_nats=3.2)
    )


def test_fits_there_and_back_that_contradict_each_other_are_for_review():
    assert verdict(replace(GOOD, inverse=InverseError(median_um=0.4, p95_um=0.8, median_px=0.4))) is Verdict.ACCEPT
    apart = replace(GOOD, inverse=InverseError(median_um=6.5, p95_um=11.0, median_px=7.1))
    assert verdict(apart) is Verdict.REVIEW
    assert "to the moving slide and back, the tissue comes to lie 6.5 µm from where it was (median): 7.1" in reasons(
        apart
    )


def test_a_fit_back_that_failed_is_for_review_with_its_reason():
    failed = replace(GOOD, backward_error="elastix failed: too many samples outside")
    assert verdict(failed) is Verdict.REVIEW
    assert "back to the fixed one failed (elastix failed: too many samples outside)" in reasons(failed)


def test_a_fit_to_compare_with_that_failed_is_for_review_with_its_reason():
    alone = replace(GOOD, disagreement_um=None, other_error="elastix crashed: SIGSEGV (signal 11)")
    assert verdict(alone) is Verdict.REVIEW
    told = "the fit of the raw images, which this one is compared with, failed (elastix crashed: SIGSEGV (signal 11))"
    assert told in reasons(alone)
    assert "the fit of the representations" in reasons(replace(alone, registered_from="raw", raw=replace(RAW, z=30.0)))


def test_where_no_tile_has_a_clear_place_it_is_said_that_no_error_is_known():
    """Small crops that are aligned often have too few; their significance tells them from wrong ones."""
    told = "there is no estimated error: too few of the 112 held-out tiles have a clear place where they fit best"
    assert verdict(GOOD) is Verdict.ACCEPT
    assert told in reasons(GOOD)
    assert "no estimated error" not in reasons(replace(GOOD, tile_error=TileError(112, 91, 0.84, 2.1, 0.9)))


def test_the_error_is_that_of_the_tiles_whose_place_is_clear():
    offsets = np.array([[[3.0, 0.0], [np.nan, np.nan]], [[0.0, 2.0], [0.0, -4.0]]])
    assert TileError.of(offsets, (0.5, 2.0), 4) == TileError(4, 3, 4.0, pytest.approx(7.6), 3.0)  # 1.5, 4 and 8 µm
    assert TileError.of(np.full((2, 2, 2), np.nan), (0.5, 0.5), 4) is None


@pytest.mark.parametrize(
    ("located", "tried", "known"), [(2, 2, False), (3, 5, True), (24, 625, False), (63, 625, True)]
)
def test_as_few_tiles_as_chance_locates_say_nothing(located, tried, known):
    assert (TileError.of(np.ones((located, 2)), (1.0, 1.0), tried) is not None) == known


def test_without_a_model_the_raw_images_decide():
    found = judge(RAW_ONLY, CONFIG)
    assert found.verdict is Verdict.ACCEPT
    assert "registered from the raw images by mutual information" in found.reasons
    assert verdict(replace(RAW_ONLY, raw=replace(RAW, z=6.0))) is Verdict.REVIEW
    assert verdict(replace(RAW_ONLY, raw=replace(RAW, z=2.0))) is Verdict.REJECT


def test_too_few_tiles_or_too_little_gain_is_for_review():
    assert verdict(replace(GOOD, comir=replace(COMIR, tiles=3))) is Verdict.REVIEW
    assert verdict(replace(GOOD, comir=replace(COMIR, share_improved=0.4))) is Verdict.REVIEW


def test_a_pair_that_was_aligned_from_the_start_need_not_improve():
    aligned = replace(COMIR, before=0.60, z_before=22.0, share_improved=0.45)
    assert verdict(replace(GOOD, comir=aligned)) is Verdict.ACCEPT
    assert verdict(replace(GOOD, comir=replace(aligned, before=0.9))) is Verdict.REVIEW


def landmarks(before, after, p95=0.0):
    """Return landmarks with these medians."""
    return Landmarks(PointsError(before, before, 80), PointsError(after, p95, 80), rtre_median=0.002, improved=0.95)


def test_landmarks():
    better = replace(GOOD, landmarks=landmarks(120.0, 6.0, 11.0))
    assert verdict(better) is Verdict.ACCEPT
    told = "80 landmarks lie 6.0 µm apart (median), 95 % within 11.0 µm; 95% lie nearer than at the start"
    assert told in reasons(better)
    assert (metrics(better)["rtre_median"], metrics(better)["landmarks_improved"]) == (0.002, 0.95)
    assert verdict(replace(GOOD, landmarks=landmarks(120.0, 300.0))) is Verdict.REJECT
    assert verdict(replace(GOOD, landmarks=landmarks(0.5, 0.8))) is Verdict.ACCEPT


@pytest.mark.parametrize("median", [500.0, 20.1, float("nan")])
def test_landmarks_that_stay_far_apart_are_for_review(median):
    far = replace(GOOD, landmarks=landmarks(900.0, median))
    assert verdict(far) is Verdict.REVIEW
    assert f"the landmarks lie {median:.1f} µm apart (median); at most 20.0 µm is allowed" in reasons(far)
    assert "judge.max_disagreement_um" in reasons(far)
    assert verdict(replace(far, landmarks=landmarks(900.0, 20.0))) is Verdict.ACCEPT


def test_a_mirrored_slide_is_told_not_punished():
    mirrored = replace(GOOD, shape=replace(GOOD.shape, mirrored=True))
    assert verdict(mirrored) is Verdict.ACCEPT
    assert "the moving slide is mirrored" in reasons(mirrored)


def test_metrics_have_the_same_names_for_every_pair():
    found = metrics(GOOD)
    assert list(found) == list(metrics(RAW_ONLY))
    assert found["comir_z"] == 23.0
    assert found["mirrored"] == "no"
    assert metrics(RAW_ONLY)["comir_z"] is None
    assert set(map(type, found.values())) <= {float, int, str, type(None)}


def test_a_fit_that_was_set_aside_is_told():
    instead = replace(GOOD, registered_from="raw", set_aside=True)
    told = "a fit of the representations was set aside: that of the raw images tells more on tiles that neither saw"
    assert told in reasons(instead)
    assert "set aside" not in reasons(GOOD)


@pytest.mark.parametrize(
    ("blocks", "expected", "word"),
    [
        (BlockCounts(100, 80, 5, 1.25, refined=True), Verdict.ACCEPT, "refined by 80 of 100 blocks, moved by 1.25 µm"),
        (BlockCounts(100, 80, 5, 1.25, refined=True), Verdict.ACCEPT, "15 were not found, 5 left out as outliers"),
        (BlockCounts(100, 15, 5, 1.25, refined=True), Verdict.REVIEW, "was refined all the same"),
        (
            BlockCounts(30, 7, 0, 0.0, refined=False),
            Verdict.REVIEW,
            "7 of 30 blocks were of use, and the transform was not refined",
        ),
    ],
)
def test_blocks_that_were_of_no_use_are_for_review(blocks, expected, word):
    refined = replace(GOOD, blocks=blocks)
    assert verdict(refined) is expected
    assert word in reasons(refined)
    assert metrics(refined)["blocks_used"] == blocks.used
