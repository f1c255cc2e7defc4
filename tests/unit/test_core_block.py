"""Blocks cover an image exactly once; a coarse mask tells which of them matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comir_batch.core.block import BlockPlan, touches
from comir_batch.core.geometry import Grid, Region


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_blocks_cover_every_pixel_once_and_begin_on_whole_shards(width, height, side):
    plan = BlockPlan(width, height, side, level=3)
    covered = np.zeros((height, width), dtype=int)
    for region in plan:
        covered[region.slices] += 1
        assert region.x0 % side == region.y0 % side == 0
        assert region.level == 3
    assert (covered == 1).all()
    assert len(list(plan)) == len(plan)


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 x 5 pixels into blocks of 4"):
        BlockPlan(0, 5, 4)


MASK_GRID = Grid(10, 10, 16.0, 16.0, 7.5, 7.5)  # 16-fold means of 160 x 160 pixels of 1 µm
GRID = Grid(160, 160, 1.0, 1.0)


def mask_with(*pixels: tuple[int, int]):
    mask = np.zeros((10, 10), dtype=bool)
    for x, y in pixels:
        mask[y, x] = True
    return mask


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        (Region(48, 32, 64, 48), True),  # the very pixels that mask pixel (3, 2) averages
        (Region(32, 32, 48, 48), False),  # its neighbours on the left
        (Region(64, 32, 80, 48), False),
        (Region(48, 48, 64, 64), False),
        (Region(0, 0, 160, 160), True),
    ],
)
def test_a_region_is_touched_by_mask_pixels_over_it(region, expected):
    assert touches(mask_with((3, 2)), MASK_GRID, region, GRID) is expected


def test_the_margin_reaches_further():
    region = Region(0, 32, 32, 48)  # ends 16 µm before mask pixel (3, 2) begins
    assert not touches(mask_with((3, 2)), MASK_GRID, region, GRID, margin_um=15.0)
    assert touches(mask_with((3, 2)), MASK_GRID, region, GRID, margin_um=17.0)


def test_a_region_beyond_the_mask_touches_nothing():
    assert not touches(np.ones((10, 10), dtype=bool), MASK_GRID, Region(400, 400, 500, 500), Grid(999, 999, 1, 1))


@given(st.integers(0, 140), st.integers(0, 140), st.integers(1, 20), st.integers(1, 20))
def test_no_tissue_under_a_region_is_ever_missed(x, y, width, height):
    region = Region(x, y, min(x + width, 160), min(y + height, 160))
    mask = mask_with((3, 2), (9, 9), (0, 5))
    under = mask.repeat(16, axis=0).repeat(16, axis=1)[region.slices].any()
    assert touches(mask, MASK_GRID, region, GRID) >= under
