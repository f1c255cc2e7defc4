"""The inverse brings moving points back to the fixed slide, and gives no answer where there is not one answer."""

from __future__ import annotations

import numpy as np
import pytest

from comir_batch.core.errors import UserError
from comir_batch.core.inverse import invert
from comir_batch.core.transform import Affine, BSpline, Composite

TURN = Affine(np.array([[-0.8, 0.5], [0.55, 0.9]]), np.array([400.0, -120.0]))


def _bend(strength, seed=0):
    coefficients = np.random.default_rng(seed).normal(0, strength, (2, 20, 24))
    return BSpline(np.array([-300.0, -200.0]), np.array([100.0, 90.0]), coefficients)


def _points(count=10_000):
    return np.random.default_rng(1).uniform([-50, 50], [1600, 1100], (count, 2))


def _pinch():
    """Return a spline that folds about x = 1000 and is still far from it."""
    coefficients = np.zeros((2, 24, 24))
    coefficients[0, :, 10:13] = [120.0, 0.0, -120.0]
    return BSpline(np.array([-100.0, -100.0]), np.array([100.0, 100.0]), coefficients)


def test_the_inverse_of_turns_and_bends_undoes_them():
    transform = Composite((TURN.inverse(), TURN, _bend(15), TURN, TURN.inverse(), _bend(10, seed=2), TURN))
    points = _points()
    assert np.abs(invert(transform, transform.map(points)) - points).max() < 1e-3


def test_a_bend_close_to_folding_is_inverted_too():
    transform = Composite((_bend(33),))
    points = _points()
    assert 0 < transform.jacobian_determinant(points, 0.01).min() < 0.35
    assert np.abs(invert(transform, transform.map(points)) - points).max() < 1e-3


def test_where_a_spline_folds_there_is_no_answer_and_elsewhere_there_is():
    pinch = Composite((_pinch(),))
    x = np.linspace(300, 1700, 2801)
    line = np.column_stack([x, np.full_like(x, 900.0)])
    mapped = pinch.map(line)
    fold = pinch.jacobian_determinant(line, 0.01) <= 0
    assert 100 < fold.sum() < 1000
    low, high = mapped[fold, 0].min(), mapped[fold, 0].max()
    several = (mapped[:, 0] > low + 0.01) & (mapped[:, 0] < high - 0.01)
    one = (mapped[:, 0] < low - 0.01) | (mapped[:, 0] > high + 0.01)
    back = invert(pinch, mapped)
    assert np.isnan(back[several]).all()
    assert np.abs(back[one] - line[one]).max() < 1e-3


def test_outside_its_support_a_spline_moves_nothing_back():
    outside = np.array([[-1000.0, 0.0], [9000.0, 9000.0]])
    assert np.array_equal(invert(Composite((_bend(20),)), outside), outside)


def test_unknown_points_stay_unknown_and_none_are_fine():
    back = invert(Composite((_bend(5), TURN)), [[np.nan, 1.0], [500.0, 500.0]])
    assert np.isnan(back[0]).all()
    assert np.isfinite(back[1]).all()
    assert invert(Composite((_bend(5), TURN)), np.empty((0, 2))).shape == (0, 2)


def test_a_slide_flattened_to_a_line_has_no_inverse():
    flat = Composite((Affine(np.array([[1.0, 2.0], [2.0, 4.0]]), np.zeros(2)),))
    with pytest.raises(UserError, match="no inverse"):
        invert(flat, [[1.0, 2.0]])


def test_where_the_support_ends_with_a_step_the_answer_lies_inside():
    """Support from (0, 0) to (400, 400); the displacement is 30 µm just inside its border and none beyond it."""
    spline = BSpline(np.full(2, -50.0), np.full(2, 50.0), np.full((2, 11, 11), 30.0))
    inside = np.random.default_rng(0).uniform(0, 400, (5000, 2))
    np.testing.assert_allclose(invert(Composite((spline,)), spline.map(inside)), inside, atol=1e-3)
