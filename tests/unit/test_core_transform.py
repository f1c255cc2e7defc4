"""Transforms: lossless as JSON, composed in order, inverted exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from comir_batch.core.transform import Affine, BSpline, Composite, from_dict

NUMBERS = st.floats(-1e4, 1e4)
POINTS = np.array([[0.0, 0.0], [13.0, -7.5], [250.25, 980.0], [40.0, 40.0]])
affines = st.builds(Affine, arrays(float, (2, 2), elements=NUMBERS), arrays(float, 2, elements=NUMBERS))
bsplines = st.builds(
    BSpline,
    arrays(float, 2, elements=NUMBERS),
    arrays(float, 2, elements=st.floats(0.5, 500)),
    st.tuples(st.just(2), st.integers(4, 7), st.integers(4, 7)).flatmap(lambda s: arrays(float, s, elements=NUMBERS)),
)
turns = st.builds(
    lambda angle, scale, mirrored, offset: Affine(
        scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirrored, 1]),
        offset,
    ),
    *(st.floats(-4, 4), st.floats(0.1, 10), st.sampled_from([-1, 1]), arrays(float, 2, elements=NUMBERS)),
)


@given(st.lists(affines | bsplines, max_size=4))
def test_json_is_lossless(parts):
    transform = Composite(tuple(parts))
    again = from_dict(json.loads(json.dumps(transform.to_dict())))
    assert np.array_equal(again.map(POINTS), transform.map(POINTS))
    assert again.to_dict() == transform.to_dict()


@given(turns)
def test_the_inverse_undoes(transform):
    assert transform.inverse().map(transform.map(POINTS)) == pytest.approx(POINTS, abs=1e-6)
    there_and_back = transform.inverse().after(transform)
    assert there_and_back.map(POINTS) == pytest.approx(POINTS, abs=1e-6)


@given(turns, turns)
def test_after_and_then_mean_the_same(first, second):
    expected = second.map(first.map(POINTS))
    assert second.after(first).map(POINTS) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert np.array_equal(Composite().then(first, second).map(POINTS), expected)


def test_about_turns_about_its_centre():
    quarter = Affine.about([[0, -1], [1, 0]], (10, 20), (1, 2))
    assert quarter.map([[10, 20], [11, 20]]).tolist() == [[11, 22], [11, 23]]


def test_a_bspline_of_equal_coefficients_shifts_inside_and_nothing_outside():
    bend = BSpline(np.zeros(2), np.array([10.0, 10.0]), np.stack([np.full((8, 9), 3.0), np.full((8, 9), -1.0)]))
    assert bend.displacement([[10, 10], [35.5, 44.4], [69.9, 59.9]]) == pytest.approx(np.array([[3, -1]] * 3))
    assert not bend.displacement([[9.9, 30], [70, 30], [30, 60], [-500, 30]]).any()


def test_a_bspline_is_the_sum_of_its_cubic_basis_functions():
    coefficients = np.random.default_rng(0).normal(size=(2, 6, 7))
    bend = BSpline(np.array([-5.0, 3.0]), np.array([4.0, 6.0]), coefficients)
    point = np.array([6.3, 17.1])
    u, v = (point - bend.origin) / bend.spacing

    def basis(t: float) -> float:
        t = abs(t)
        return 2 / 3 - t**2 + t**3 / 2 if t < 1 else (2 - t) ** 3 / 6 if t < 2 else 0.0

    expected = sum(
        coefficients[:, row, column] * basis(v - row) * basis(u - column) for row in range(6) for column in range(7)
    )
    assert bend.displacement([point])[0] == pytest.approx(expected)


def test_the_jacobian_tells_area_and_folds():
    double = Composite((Affine(np.array([[2.0, 0], [0, 3.0]]), np.zeros(2)),))
    assert double.jacobian_determinant(POINTS, 0.5) == pytest.approx(np.full(4, 6.0))
    mirrored = double.then(Affine(np.array([[-1.0, 0], [0, 1]]), np.zeros(2)))
    assert (mirrored.jacobian_determinant(POINTS, 0.5) < 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version is 2, expected 1"),
        ({"maps": "moving to fixed"}, "expected 'fixed to moving'"),
        ({"unit": "pixel"}, "unit"),
        ({"format": None}, "format"),
        ({"parts": [{"type": "spline"}]}, "unknown part 'spline'"),
        ({"parts": [{"type": "affine", "matrix": [[1, 0], [0, 1]]}]}, "incomplete transform"),
        ({"parts": [{"type": "affine", "matrix": [[1, 0], [0, float("nan")]], "offset": [0, 0]}]}, "finite"),
        ({"parts": [{"type": "affine", "matrix": [1, 2, 3], "offset": [0, 0]}]}, "shape"),
        ({"parts": None}, "incomplete"),
    ],
)
def test_what_is_not_a_transform_of_ours_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Composite().to_dict() | change)


def test_transforms_cannot_be_changed():
    transform = Affine.identity()
    with pytest.raises(ValueError, match="read-only"):
        transform.matrix[0, 0] = 2
    source = np.eye(2)
    made = Affine(source, np.zeros(2))
    source[0, 0] = 5
    assert made.matrix[0, 0] == 1
