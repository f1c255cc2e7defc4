"""Inverses for images: measured, or refused."""

import numpy as np
import pytest

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.warp.inverse_map import inverted

FIXED, MOVING = Grid(4000, 3000, 0.25, 0.25), Grid(1500, 1500, 1.0, 1.0)
TURN = Affine.about([[0.8, -0.6], [0.6, 0.8]], [500, 400], [200, 300])


def spline(amplitude, beyond=2, spacing=100.0):
    """A deformation whose support ends so many control points beyond the fixed slide."""
    rows, columns = (int(np.ceil(size / spacing)) + 3 + 2 * beyond for size in (750, 1000))
    coefficients = np.random.default_rng(0).normal(0, amplitude, (2, rows, columns))
    return BSpline(np.full(2, -(1 + beyond) * spacing), np.full(2, spacing), coefficients)


def points():
    return FIXED.to_um(np.random.default_rng(1).random((5000, 2)) * [3999, 2999])


@pytest.mark.parametrize("parts", [(TURN,), (TURN, TURN), (spline(4), TURN), (spline(4, beyond=0), TURN)])
def test_what_comes_back_lies_where_it_was(parts):
    transform = Composite(parts)
    moved = transform.map(points())
    seen = ((moved >= 0) & (moved <= 1499)).all(axis=1)
    back = inverted(transform, FIXED, MOVING, 0.02).map(moved[seen])
    assert seen.mean() > 0.5
    assert np.hypot(*(back - points()[seen]).T).max() < 0.05


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (Composite((spline(60), TURN)), "It may fold at x"),
        (Composite((spline(0.001, spacing=0.5), TURN)), "too fine"),
        (Composite((Affine(np.zeros((2, 2)), np.zeros(2)),)), "flattens"),
    ],
    ids=["folded", "fine", "flat"],
)
def test_no_good_inverse_is_refused(transform, said):
    with pytest.raises(UserError, match=said):
        inverted(transform, FIXED, MOVING, 0.02)
