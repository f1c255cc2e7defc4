"""The working level: never interpolated, never much coarser than asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.core.config import ChunkConfig
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.pipeline.working import default_mpp, working_level


def slide(mpp: float, *downsamples: float, width: int = 40_000, height: int = 20_000) -> SlideInfo:
    levels = tuple(Level(round(width / d), round(height / d), d, d) for d in (1.0, *downsamples))
    return SlideInfo(levels, ("dapi",), "uint16", mpp, mpp, "dark", "test")


@pytest.mark.parametrize(
    ("downsamples", "target", "level", "factor"),
    [
        ((4.0, 16.0), 1.0, 1, 1),  # the level that fits is read as it is
        ((4.0, 16.0), 2.0, 1, 2),  # else the finer one is averaged
        ((4.0, 16.0), 4.0, 2, 1),
        ((4.0, 16.0), 0.25, 0, 1),
        ((4.0, 16.0), 0.5, 0, 2),
        ((4.0, 16.0), 50.0, 2, 12),
        ((4.3, 17.0), 1.0, 1, 1),  # up to a tenth coarser is as good
        ((4.5, 17.0), 1.0, 0, 4),
        ((), 1.0, 0, 4),
        ((4.0,), 0.1, 0, 1),  # finer than the slide is not to be had
    ],
)
def test_the_level_and_factor_are_those_nearest_to_the_target(downsamples, target, level, factor):
    working = working_level(slide(0.25, *downsamples), target)
    assert (working.level, working.factor) == (level, factor)


@given(st.floats(0.1, 2.0), st.floats(0.1, 100.0))
def test_the_pixel_size_is_within_a_third_of_the_target_where_the_slide_is_fine_enough(mpp, target):
    working = working_level(slide(mpp, 2.0, 8.0, 32.0), target)
    if target >= mpp:
        assert 0.66 <= working.mpp / target <= 1.5
    else:
        assert (working.level, working.factor) == (0, 1)


def test_the_grid_lies_at_the_mean_of_the_pixels_that_are_averaged():
    working = working_level(slide(0.25, 4.0), 3.0)
    assert (working.level, working.factor) == (1, 3)
    assert working.grid.mpp_x == pytest.approx(3.0)
    assert working.grid.origin_x == pytest.approx((12 - 1) / 2 * 0.25)


def test_huge_slides_are_worked_on_more_coarsely_without_a_model():
    assert default_mpp(slide(0.25), ChunkConfig()) == pytest.approx(40_000 * 0.25 / 8192)
    assert default_mpp(slide(0.25, width=4000, height=4000), ChunkConfig()) == 1.0
