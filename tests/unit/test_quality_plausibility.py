"""Shape, folding, overlap and landmark errors of transforms whose truth is known."""

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.quality.plausibility import folding, overlap, shape, tissue_points
from comir_batch.quality.points import InverseError, disagreement, judge_landmarks

GRID = Grid(200, 150, 2.0, 2.0, 10.0, -5.0)
POINTS = tissue_points(np.ones(GRID.shape, bool), GRID)


def rotation(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


def linear(matrix, translation=(0.0, 0.0)):
    return Composite((Affine.about(matrix, [200, 150], translation),))


def waves(amplitude, seed=0):
    coefficients = np.random.default_rng(seed).normal(0, amplitude, (2, 20, 20))
    return BSpline(np.full(2, -100.0), np.full(2, 40.0), coefficients)


@pytest.mark.parametrize("degrees", [0, 25, -100, 179])
@pytest.mark.parametrize("mirrored", [False, True])
def test_shape_of_a_similarity(degrees, mirrored):
    found = shape(linear(1.1 * rotation(degrees) @ np.diag([-1.0 if mirrored else 1.0, 1.0])), POINTS)
    assert found.scale_min == pytest.approx(1.1)
    assert found.scale_max == pytest.approx(1.1)
    assert found.shear == pytest.approx(0, abs=1e-9)
    assert found.mirrored is mirrored
    assert found.rotation_deg == pytest.approx(degrees)


def test_shape_of_a_shear():
    found = shape(linear([[1.0, 0.3], [0.0, 1.0]]), POINTS)
    assert found.shear == pytest.approx(0.3)
    assert found.scale_max > 1.1
    assert found.scale_min < 0.9


def test_a_deformation_hardly_changes_the_shape():
    found = shape(linear(rotation(30)).then(waves(2.0)), POINTS)
    assert found.rotation_deg == pytest.approx(30, abs=1)
    assert found.scale_max == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_folding(mirror):
    turned = linear(rotation(70) @ np.diag([mirror, 1.0]))
    smooth = folding(turned.then(waves(2.0)), POINTS, 2.0)
    assert smooth.share == 0
    assert 0.5 < smooth.jacobian_min < 1 < smooth.jacobian_max < 1.5
    folded = folding(turned.then(waves(60.0)), POINTS, 2.0)
    assert folded.share > 0.05
    assert folded.jacobian_min < 0


def test_folding_without_tissue():
    assert folding(linear(rotation(3)), np.zeros((0, 2)), 1.0).share == 0


def test_overlap():
    mask = np.zeros(GRID.shape, bool)
    mask[50:100, 60:120] = True
    whole = (mask, GRID)
    assert overlap(Composite(), whole, whole) == pytest.approx(1)
    assert overlap(linear(np.eye(2), (60.0, 0.0)), whole, whole) == pytest.approx(0.5, abs=0.02)
    assert overlap(linear(np.eye(2), (900.0, 0.0)), whole, whole) == 0
    half = mask.copy()
    half[:, 90:] = False
    assert overlap(Composite(), whole, (half, GRID)) == pytest.approx(1)
    assert overlap(Composite(), (half, GRID), whole) == pytest.approx(1)
    assert overlap(Composite(), (np.zeros_like(mask), GRID), whole) == 0


def test_tissue_points_are_pixel_centres_and_few():
    mask = np.zeros((2000, 2000), bool)
    mask[7, 3] = True
    np.testing.assert_allclose(tissue_points(mask, Grid(2000, 2000, 0.5, 0.25, 1.0, 2.0)), [[2.5, 3.75]])
    assert len(tissue_points(~mask, Grid(2000, 2000, 1, 1))) == 20_000
    assert tissue_points(np.zeros((5, 5), bool), Grid(5, 5, 1, 1)).shape == (0, 2)


def test_landmark_errors():
    transform, start = linear(rotation(10), (3.0, 4.0)), linear(rotation(10), (3.0, 9.0))
    landmarks = np.array([[0.0, 0.0], [100.0, 50.0], [20.0, 300.0]])
    exact = transform.map(landmarks)
    assert judge_landmarks(start, transform, landmarks, exact, 400.0).after.median_um == pytest.approx(0)
    moving = exact + np.array([[3.0, 4.0], [0.0, 1.0], [0.0, 10.0]])
    found = judge_landmarks(start, transform, landmarks, moving, 400.0)
    assert found.after.median_um == pytest.approx(5)
    assert found.after.p95_um == pytest.approx(9.5)
    assert found.after.count == 3
    assert found.before.median_um == pytest.approx(4)  # off by 5 along y: 3.16, 4 and 5
    assert found.rtre_median == pytest.approx(5 / 400)
    assert found.improved == pytest.approx(1 / 3)


@pytest.mark.parametrize("moving", [np.zeros((2, 2)), np.zeros((0, 2))])
def test_landmarks_must_be_pairs(moving):
    with pytest.raises(ValueError, match="landmarks must be pairs: 3 fixed"):
        judge_landmarks(Composite(), Composite(), np.zeros((3, 2)), moving, 1.0)


def test_disagreement_is_a_median_distance():
    assert disagreement(Composite(), linear(np.eye(2), (3.0, 4.0)), POINTS) == pytest.approx(5)


def test_the_inverse_error_is_how_far_points_come_to_lie_from_where_they_were():
    forward = Composite((Affine(np.array([[0.0, -2.0], [2.0, 0.0]]), np.array([100.0, 5.0])),))
    (there,) = forward.parts
    points = np.random.default_rng(0).uniform(0, 500, (40, 2))
    exact = InverseError.of(forward, Composite((there.inverse(),)), points, 0.5)
    assert exact.p95_um < 1e-9
    aside = Composite((there.inverse(), Affine(np.eye(2), np.array([3.0, -4.0]))))
    assert InverseError.of(forward, aside, points, 0.5) == InverseError(
        pytest.approx(5.0), pytest.approx(5.0), pytest.approx(10.0)
    )
