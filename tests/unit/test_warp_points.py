import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.warp.points import Way, subdivided

_LINES = st.lists(st.tuples(*[st.floats(-1e4, 1e4)] * 2), min_size=1, max_size=8).map(np.array)


@given(line=_LINES, longest=st.floats(50, 1e5))
def test_edges_are_cut_into_equal_pieces_that_are_short_enough(line, longest):
    found = subdivided(line, longest)
    at = [np.flatnonzero((found == point).all(axis=1)) for point in line]
    assert all(places.size for places in at)
    np.testing.assert_array_equal(found[[0, -1]], line[[0, -1]])
    lengths = np.hypot(*np.diff(found, axis=0).T)
    assert (lengths <= longest * (1 + 1e-9)).all()
    np.testing.assert_allclose(lengths.sum(), np.hypot(*np.diff(line, axis=0).T).sum(), atol=1e-6)


def test_short_edges_stay():
    line = np.array([[0.0, 0], [3, 4], [3, 4], [0, 0]])
    np.testing.assert_array_equal(subdivided(line, 5.0), line)


@given(st.integers(0, 1000))
def test_there_and_back(seed):
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    spline = BSpline(np.full(2, -500.0), np.full(2, 100.0), random.normal(0, 5, (2, 20, 20)))
    transform = Composite((spline, Affine.about(turn, [400, 300], random.normal(0, 50, 2))))
    points = random.uniform(0, 800, (20, 2))
    points[3] = np.nan
    back = Way(transform, inverse=True).map(Way(transform).map(points))
    np.testing.assert_allclose(back, points, atol=2e-3)
