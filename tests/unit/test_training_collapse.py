"""Spectra of known features, and distances that scaling finds again."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from comir_batch.training.collapse import spectrum
from comir_batch.training.mds import smacof

RNG = np.random.default_rng(1)
TURN = np.linalg.qr(RNG.normal(size=(12, 12)))[0]


def test_features_of_the_same_variance_everywhere_use_all_dimensions():
    found = spectrum(np.vstack([np.eye(12), -np.eye(12)]) @ TURN)
    assert found.samples == 24
    assert found.values == pytest.approx([1 / 12] * 12)
    assert found.effective_rank == pytest.approx(12)
    assert found.stable_rank == pytest.approx(12)
    assert found.collapsed == 0


def test_dimensions_that_are_never_used_are_collapsed():
    features = RNG.normal(size=(500, 3)) @ RNG.normal(size=(3, 12)) + 7
    found = spectrum(features)
    assert found.collapsed == 9
    assert found.dimensions == 12
    assert 1 <= found.stable_rank <= found.effective_rank <= 3


def test_one_direction_is_a_rank_of_one():
    found = spectrum(np.outer(np.arange(30), TURN[0]))
    assert found.effective_rank == pytest.approx(1, abs=1e-6)
    assert found.stable_rank == pytest.approx(1, abs=1e-6)
    assert found.relative[0] == 1
    assert found.collapsed == 11


def test_ranks_follow_their_formulas():
    found = spectrum(np.vstack([np.diag([2.0, 1.0]), -np.diag([2.0, 1.0])]))
    assert found.values == pytest.approx([2.0, 0.5])
    assert found.stable_rank == pytest.approx(2.5**2 / 4.25)
    assert found.effective_rank == pytest.approx(0.8**-0.8 * 0.2**-0.2)


def test_singular_values_are_those_of_the_covariance():
    features = RNG.normal(size=(40, 12)) @ TURN * np.arange(1, 13)
    expected = np.linalg.svd(np.cov(features.T, bias=True), compute_uv=False)
    assert spectrum(features).values == pytest.approx(expected)


def test_few_samples_cannot_fill_many_dimensions():
    found = spectrum(RNG.normal(size=(5, 12)))
    assert len(found.values) == 12
    assert found.collapsed == 8


def test_features_that_are_all_alike_have_no_rank():
    found = spectrum(np.full((6, 4), 0.5))
    assert (found.effective_rank, found.stable_rank, found.collapsed) == (0, 0, 4)
    assert found.relative == (0, 0, 0, 0)


@pytest.mark.parametrize("features", [np.zeros((1, 4)), np.zeros(4), np.full((3, 2), np.nan)])
def test_features_that_have_no_covariance_are_refused(features):
    with pytest.raises(ValueError, match="features"):
        spectrum(features)


def test_distances_in_the_plane_are_found_again():
    points = RNG.normal(size=(40, 2)) * [3, 1] + 10
    found = smacof(cdist(points, points))
    assert found.stress < 1e-6
    assert cdist(found.points, found.points) == pytest.approx(cdist(points, points), abs=1e-4)
    assert found.points.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert found.points[:, 0].std() > found.points[:, 1].std()


def test_scaling_improves_on_its_start_where_the_plane_does_not_suffice():
    points = RNG.normal(size=(30, 8))
    given = cdist(points, points)
    centred = points - points.mean(axis=0)
    plane = (centred @ np.linalg.svd(centred)[2].T)[:, :2]  # classical scaling of Euclidean distances
    start = np.sqrt(((cdist(plane, plane) - given) ** 2).sum() / (given**2).sum())
    found = smacof(given)
    assert 0.1 < found.stress < 0.8 * start


def test_the_same_distances_give_the_same_points_whatever_their_unit():
    points = RNG.normal(size=(20, 5))
    given = cdist(points, points)
    found = smacof(given)
    assert (smacof(given).points == found.points).all()
    assert smacof(1000 * given).points == pytest.approx(1000 * found.points, rel=1e-6)


def test_points_that_are_one_stay_one():
    found = smacof(np.zeros((5, 5)))
    assert found.stress == 0
    assert (found.points == 0).all()
