"""Coordinates from the lattice agree with the exact map within the tolerance, wherever the region lies."""

import numpy as np
import pytest

from comir_batch.core.geometry import Grid, Region
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.warp.lattice import coordinate_map

ANGLE = np.deg2rad(25)
ROTATION = [[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]]


def bspline(spacing, size, amplitude, seed=0):
    count = int(size / spacing) + 9
    coefficients = np.random.default_rng(seed).normal(0, amplitude, (2, count, count))
    return BSpline(np.full(2, -4.0 * spacing), np.full(2, float(spacing)), coefficients)


def exact(transform, fixed, region, moving):
    y, x = np.mgrid[region.y0 : region.y1, region.x0 : region.x1]
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    return moving.to_pixels(transform.map(fixed.to_um(pixels))).reshape(*region.shape, 2)


def absolute(found):
    return np.stack([found.x, found.y], axis=-1) + found.origin


def worst(transform, fixed, region, moving, tolerance=0.02):
    found = coordinate_map(transform, fixed, region, moving, tolerance)
    return found, np.abs(absolute(found) - exact(transform, fixed, region, moving)).max()


def test_affine_needs_no_lattice():
    fixed, moving = Grid(900, 700, 0.5, 0.5), Grid(900, 700, 0.3, 0.3, 7.0, -2.0)
    transform = Composite((Affine.about(ROTATION, [100, 90], [5, -3]),))
    found, error = worst(transform, fixed, Region(40, 50, 340, 270), moving)
    assert found.step == 0
    assert error < 1e-3


def test_huge_offsets_keep_their_precision():
    fixed, moving = Grid(250_000, 250_000, 0.25, 0.25), Grid(250_000, 250_000, 0.23, 0.23)
    region = Region(200_003, 210_007, 200_203, 210_107)
    _, error = worst(Composite((Affine.about(ROTATION, [25_000, 25_000], [0.1, 0.2]),)), fixed, region, moving)
    assert error < 0.001


def test_identity_is_exact_to_the_bit():
    grid = Grid(5000, 5000, 0.228, 0.228)
    found = coordinate_map(Composite(), grid, Region(4000, 3000, 4300, 3200), grid, 0.02)
    x = found.x.astype(np.float64) + found.origin[0]
    np.testing.assert_array_equal(np.rint(x), np.broadcast_to(np.arange(4000, 4300), x.shape))
    assert np.abs(x - np.rint(x)).max() < 1e-6


def test_bspline_is_interpolated_within_the_tolerance():
    grid = Grid(2000, 2000, 0.25, 0.25)
    transform = Composite((Affine.about(np.eye(2) * 1.02, [250, 250], [3, 4]), bspline(64, 600, 2.5)))
    found, error = worst(transform, grid, Region(1024, 512, 1500, 900), grid)
    assert found.step == 32
    assert error < 0.02


def test_a_rougher_map_gets_a_finer_lattice():
    grid = Grid(2000, 2000, 0.25, 0.25)
    region = Region(1024, 512, 1324, 712)
    turned = Affine.about(ROTATION, [250, 250], [0, 0])
    steps = [worst(Composite((turned, bspline(64, 600, amplitude))), grid, region, grid) for amplitude in (1.0, 60.0)]
    (smooth, _), (rough, error) = steps
    assert rough.step < smooth.step
    assert error < 0.02


def test_every_pixel_is_mapped_where_no_lattice_will_do():
    grid = Grid(400, 400, 1.0, 1.0)
    edge_of_support = BSpline(np.array([-40.0, -40.0]), np.array([40.0, 40.0]), np.full((2, 5, 30), 25.0))
    found, error = worst(Composite((edge_of_support,)), grid, Region(0, 0, 200, 200), grid)
    assert found.step == 1
    assert error < 1e-3


@pytest.mark.parametrize("region", [Region(0, 0, 1, 1), Region(5, 7, 6, 300), Region(0, 0, 333, 2)])
def test_thin_regions(region):
    grid = Grid(500, 500, 0.5, 0.5)
    _, error = worst(Composite((bspline(64, 300, 2.0),)), grid, region, grid)
    assert error < 0.02


def test_origin_lies_below_all_coordinates():
    grid = Grid(800, 800, 0.5, 0.5)
    transform = Composite((Affine.about([[-1.0, 0.0], [0.0, 1.0]], [200, 200], [0, 0]), bspline(64, 450, 6.0)))
    found = coordinate_map(transform, grid, Region(100, 100, 400, 300), grid, 0.02)
    assert found.x.min() >= 0
    assert found.y.min() >= 0
