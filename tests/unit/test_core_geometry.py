"""Grids and regions: pixel centres carry coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import Level, SlideInfo

SIZES = st.integers(1, 5000)
MPPS = st.floats(0.05, 50)


def slide(*downsamples: tuple[float, float], width: int = 1000, height: int = 800) -> SlideInfo:
    levels = tuple(Level(round(width / x), round(height / y), x, y) for x, y in downsamples)
    return SlideInfo(levels, ("dapi",), "uint16", 0.5, 0.25, "dark", "test")


def test_level_0_has_its_first_pixel_at_the_origin():
    assert slide((1, 1)).grid().to_um([[0, 0], [3, 4]]).tolist() == [[0, 0], [1.5, 1.0]]


@pytest.mark.parametrize("downsample", [2.0, 4.0, 3.98, 16.0])
def test_a_coarser_level_has_its_first_pixel_between_those_that_it_averages(downsample):
    grid = slide((1, 1), (downsample, downsample)).grid(1)
    assert grid.to_um([[0, 0]])[0] == pytest.approx([(downsample - 1) / 2 * 0.5, (downsample - 1) / 2 * 0.25])
    assert (grid.mpp_x, grid.mpp_y) == pytest.approx((0.5 * downsample, 0.25 * downsample))


def test_downsamples_are_measured_along_each_axis():
    grid = slide((1, 1), (4.0, 2.0)).grid(1)
    assert (grid.origin_x, grid.origin_y) == (0.75, 0.125)


def test_an_area_mean_of_a_linear_image_lies_where_the_reduced_grid_says():
    grid = Grid(12, 8, 0.5, 0.25, 3.0, -7.0)
    columns, rows = np.meshgrid(np.arange(12), np.arange(8))
    places = grid.to_um(np.stack([columns.ravel(), rows.ravel()], axis=1)).reshape(8, 12, 2)
    means = places.reshape(2, 4, 3, 4, 2).mean(axis=(1, 3))
    reduced = grid.reduced(4)
    assert reduced.shape == (2, 3)
    assert reduced.to_um([[2, 1]])[0] == pytest.approx(means[1, 2])


def test_an_incomplete_last_column_is_kept():
    assert Grid(13, 8, 1, 1).reduced(4).shape == (2, 4)


@given(SIZES, SIZES, MPPS, MPPS, st.integers(1, 9), st.integers(1, 9))
def test_reducing_twice_is_reducing_once(width, height, mpp_x, mpp_y, first, second):
    grid = Grid(width, height, mpp_x, mpp_y, 1.0, 2.0)
    twice, once = grid.reduced(first).reduced(second), grid.reduced(first * second)
    assert twice.shape == once.shape
    assert twice.to_um([[1, 1]]) == pytest.approx(once.to_um([[1, 1]]))


@given(MPPS, MPPS, st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_pixels_and_micrometres_are_inverse(mpp_x, mpp_y, origin_x, origin_y, x, y):
    grid = Grid(10, 10, mpp_x, mpp_y, origin_x, origin_y)
    assert grid.to_um(grid.to_pixels([[x, y]]))[0] == pytest.approx([x, y], abs=1e-6)


def test_corners_are_centres_of_pixels():
    assert Grid(3, 2, 2.0, 5.0, 1.0, 1.0).corners_um().tolist() == [[1, 1], [5, 1], [1, 6], [5, 6]]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((0, 5, 1, 1), "0 x 5"), ((5, 5, 0, 1), "positive"), ((5, 5, 1, float("nan")), "nan"), ((5, 5, 1, -2), "-2")],
)
def test_impossible_grids_are_refused_with_their_values(sizes, message):
    with pytest.raises(ValueError, match=message):
        Grid(*sizes)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (3, 0, 2, 5), (0, 0, 5, 5, -1)])
def test_impossible_regions_are_refused(box):
    with pytest.raises(ValueError, match=r"empty region|negative level"):
        Region(*box)


def test_regions_meet_only_on_one_level():
    box = Region(2, 3, 10, 12)
    assert box.intersection(Region(5, 0, 20, 5)) == Region(5, 3, 10, 5)
    assert box.intersection(Region(10, 3, 12, 12)) is None, "half open"
    assert box.grown(4).within(8, 9) == Region(0, 0, 8, 9)
    assert box.shifted(-2, -3) == Region(0, 0, 8, 9)
    assert (box.width, box.height, box.shape) == (8, 9, (9, 8))
    with pytest.raises(ValueError, match="levels 0 and 1"):
        box.intersection(Region(0, 0, 1, 1, 1))


def test_slices_are_y_first():
    assert np.zeros((20, 30))[Region(1, 2, 11, 5).slices].shape == (3, 10)
