"""Coarse images keep their place, and nothing leaks in from outside the mask."""

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.registration.coarse import GreyLevels, coarsened, common_mpp, correlation_area
from comir_batch.registration.images import RegistrationImage

SIDE = 160


def _ramp(mpp_x=0.5, mpp_y=1.0):
    """Intensities are 2 x + 3 y + 1 in µm."""
    grid = Grid(SIDE, SIDE, mpp_x, mpp_y, 7.0, -3.0)
    y, x = np.mgrid[:SIDE, :SIDE]
    places = grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1))
    pixels = (places @ [2.0, 3.0] + 1).reshape(SIDE, SIDE).astype(np.float32)
    return RegistrationImage(pixels, np.ones((SIDE, SIDE), dtype=bool), grid)


@pytest.mark.parametrize("mpp", [1.0, 3.3, 9.7])
def test_a_ramp_stays_in_place(mpp):
    coarse = coarsened(_ramp(), mpp)
    assert (coarse.grid.mpp_x, coarse.grid.mpp_y) == pytest.approx((mpp, mpp))
    y, x = np.nonzero(coarse.mask)
    expected = coarse.grid.to_um(np.stack([x, y], axis=1)) @ [2.0, 3.0] + 1
    inner = (x > 2) & (y > 2) & (x < coarse.grid.width - 3) & (y < coarse.grid.height - 3)
    assert inner.any()
    np.testing.assert_allclose(coarse.pixels[y, x][inner], expected[inner], atol=0.02 * mpp)


def test_the_outside_does_not_leak_in():
    image = _ramp()
    pixels, mask = np.ones_like(image.pixels), np.zeros_like(image.mask)
    mask[40:100, 50:120] = True
    pixels[~mask] = np.nan
    coarse = coarsened(RegistrationImage(pixels, mask, image.grid), 3.3)
    np.testing.assert_allclose(coarse.pixels[coarse.mask], 1.0, atol=1e-5)
    np.testing.assert_array_equal(coarse.pixels[~coarse.mask], 0.0)


def test_thin_tissue_is_not_lost():
    image = _ramp()
    mask = np.zeros_like(image.mask)
    mask[80, 10:150] = True
    assert coarsened(image.masked(mask), 20.0).mask.any()


def test_the_common_pixel_size_follows_the_larger_tissue_but_not_below_the_images():
    image = _ramp()
    mask = np.zeros_like(image.mask)
    mask[:, :10] = True
    assert common_mpp(image, image.masked(mask), 64) == pytest.approx(SIDE / 64)
    assert common_mpp(image, image, 10_000) == 1.0


def test_grey_levels_hold_equal_shares():
    values = np.random.default_rng(0).exponential(size=10_000).astype(np.float32)
    levels = GreyLevels.of(values)
    np.testing.assert_allclose(np.bincount(levels.label(values)) / len(values), 0.2, atol=0.001)


def test_smooth_images_have_fewer_independent_pixels():
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    mask, grid = np.ones((SIDE, SIDE), dtype=bool), Grid(SIDE, SIDE, 1.0, 1.0)
    blocks = noise[: SIDE // 4, : SIDE // 4].repeat(4, axis=0).repeat(4, axis=1)
    white = correlation_area(RegistrationImage(noise, mask, grid))
    blocky = correlation_area(RegistrationImage(blocks, mask, grid))
    assert blocky / white > 2
    constant = RegistrationImage(np.ones_like(noise), mask, grid)
    assert correlation_area(constant) == 1.0
