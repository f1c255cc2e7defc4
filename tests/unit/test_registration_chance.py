"""Standard scores: what chance gives is their unit, whatever overlaps."""

import numpy as np
import pytest

from comir_batch.registration.chance import Chance, Tally, bin_edges


def _surfaces(seed, number=4):
    """Scores whose mean and spread depend on the overlap, from a tenth of 1000 pixels to all of them."""
    generator = np.random.default_rng(seed)
    for _ in range(number):
        overlap = generator.uniform(0, 1000, (80, 80)).astype(np.float32)
        scores = (3 - overlap / 500 + (1 + overlap / 1000) * generator.normal(size=overlap.shape)).astype(np.float32)
        scores[overlap < 100] = -np.inf
        yield scores, overlap


def _chance(surfaces, least, most, **how):
    edges = bin_edges(least, most)
    return Chance.of([Tally.of(scores, overlap, edges) for scores, overlap in surfaces], edges, most, **how)


def test_scores_of_chance_become_standard_whatever_overlaps():
    chance = _chance(_surfaces(1), 100, 1000)
    ((scores, overlap),) = _surfaces(2, 1)
    standard = chance.standard(scores, overlap) / np.sqrt(overlap / 1000)
    for low in (100, 400, 700):
        inside = (overlap >= low) & (overlap < low + 300)
        assert standard[inside].mean() == pytest.approx(0, abs=0.1)
        assert standard[inside].std() == pytest.approx(1, abs=0.1)


def test_shifts_that_overlap_too_little_stay_without_a_score():
    chance = _chance(_surfaces(1), 100, 1000)
    ((scores, overlap),) = _surfaces(2, 1)
    assert np.array_equal(np.isneginf(chance.standard(scores, overlap)), overlap < 100)


def test_a_score_as_high_counts_less_where_less_overlaps():
    chance = Chance(np.array([100.0, 1000.0]), np.zeros(2), np.ones(2), 1000.0)
    scores = chance.standard(np.full((1, 2), 6, np.float32), np.array([[250, 1000]], np.float32))
    assert scores.tolist() == [[3.0, 6.0]]


def test_where_nothing_overlaps_nothing_has_a_score():
    nothing = np.full((4, 4), -np.inf, np.float32), np.zeros((4, 4), np.float32)
    chance = _chance([nothing], 10, 20)
    assert np.isneginf(chance.standard(*nothing)).all()


@pytest.mark.parametrize("number", [1, 3])
def test_few_scores_are_better_than_none(number):
    scores = np.arange(number, dtype=np.float32)[None]
    chance = _chance([(scores, np.full_like(scores, 15))], 10, 20)
    assert np.isfinite(chance.standard(scores, np.full_like(scores, 15))).all()


def test_shifts_of_one_angle_alone_tell_nothing_of_chance_where_scores_are_added():
    """Nearly all overlaps at an upright angle only, whose few shifts are alike: scores there were ten times as high."""
    *turned, (scores, overlap) = _surfaces(1)
    upright = np.where(overlap > 900, 1.5 + 0.1 * scores, scores)
    surfaces = [*[(np.where(at > 900, -np.inf, of), at) for of, at in turned], (upright, overlap)]
    ((scores, overlap),) = _surfaces(2, 1)
    alone, added = (
        _chance(surfaces, 100, 1000, added=added).standard(scores, overlap)[overlap > 950] for added in (False, True)
    )
    assert added.std() == pytest.approx(1, abs=0.3)
    assert alone.std() > 5
