"""Warping real slides, read from their files: right to a grey level, the same in blocks, within the memory foretold."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from comir_batch.core.block import BlockPlan
from comir_batch.core.config import WarpConfig
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.io.open import open_slide
from comir_batch.warp.resample import memory_mb, warp_block

LINEAR = WarpConfig()


def deformed(size_um, degrees, *, mirrored=False):
    """Return a rotation about the middle with a deformation of some µm whose support is larger than the slide."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(size_um) / 2
    turn = Affine.about(matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0]), middle, [11.0, -7.0])
    count = int(2 * max(size_um) / 64) + 8
    coefficients = np.random.default_rng(0).normal(0, 3, (2, count, count))
    return Composite((turn, BSpline(middle - 32 * count, np.full(2, 64.0), coefficients)))


def exact(slide, transform, fixed_grid, region):
    """Interpolate the whole slide at exact float64 coordinates; return values, and where they lie inside."""
    grid = slide.info.grid()
    pixels = slide.read(Region(0, 0, grid.width, grid.height))
    y, x = np.mgrid[region.y0 : region.y1, region.x0 : region.x1]
    at = grid.to_pixels(transform.map(fixed_grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1))))
    inside = ((at > -0.5) & (at < np.array([grid.width, grid.height]) - 0.5)).all(axis=1)
    values = [ndimage.map_coordinates(c.astype(np.float64), at[:, ::-1].T, order=1, mode="nearest") for c in pixels]
    return np.reshape(values, (len(pixels), *region.shape)), inside.reshape(region.shape)


@pytest.fixture
def svs(shared_data):
    path = shared_data / "slides" / "aperio_svs_cmu1_small_region" / "CMU-1-Small-Region.svs"
    with open_slide(SlideSpec(path)) as slide:
        yield slide


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_rgb_slide_is_right_to_a_grey_level(svs, mirrored):
    grid = svs.info.grid()
    transform = deformed(grid.size_um, 25, mirrored=mirrored)
    region = Region(700, 1000, 1500, 1600)
    warped = warp_block(svs, transform, grid, region, WarpConfig(max_lattice_error_px=0.005), fill=255)
    expected, inside = exact(svs, transform, grid, region)
    difference = np.abs(warped.astype(np.float64) - expected)[:, inside]
    assert difference.max() <= 1.5
    assert np.quantile(difference, 0.999) <= 1


def test_blocks_make_the_whole(svs):
    grid = svs.info.grid()
    transform = deformed(grid.size_um, 25)
    whole = warp_block(svs, transform, grid, Region(0, 0, grid.width, grid.height), LINEAR, fill=255)
    for region in BlockPlan(grid.width, grid.height, 768):
        block = warp_block(svs, transform, grid, region, LINEAR, fill=255)
        np.testing.assert_array_equal(block, whole[:, *region.slices])


def test_identity_changes_nothing(ndpi_pair):
    with open_slide(SlideSpec(ndpi_pair[0])) as slide:
        region = Region(1900, 2300, 2600, 2700)
        warped = warp_block(slide, Composite(), slide.info.grid(), region, LINEAR, fill=0)
        np.testing.assert_array_equal(warped, slide.read(region))


def test_a_coarse_fixed_grid_reads_the_pyramid(ndpi_pair):
    with open_slide(SlideSpec(ndpi_pair[0])) as slide:
        coarse = slide.info.grid(2)
        whole = Region(0, 0, coarse.width, coarse.height)
        warped = warp_block(slide, Composite(), coarse, whole, LINEAR, fill=0)
        np.testing.assert_array_equal(warped, slide.read(Region(0, 0, coarse.width, coarse.height, 2)))


def test_sixteen_bits_and_another_pixel_size(shared_data):
    path = next((shared_data / "phase_fluorescence").rglob("phase_contrast_z6.png"))
    with open_slide(SlideSpec(path, mpp=0.5)) as slide:
        grid = Grid(1100, 900, 0.6, 0.55, 12.0, 20.0)
        transform = deformed(slide.info.grid().size_um, -40)
        region = Region(100, 150, 900, 700)
        warped = warp_block(slide, transform, grid, region, WarpConfig(max_lattice_error_px=0.005), fill=0)
        expected, inside = exact(slide, transform, grid, region)
    assert warped.dtype == np.uint16
    difference = np.abs(warped.astype(np.float64) - expected)[:, inside]
    assert np.quantile(difference, 0.999) <= 257  # one grey level of 8 bits


def test_memory_stays_below_what_is_foretold(svs):
    grid = Grid(4096, 4096, svs.info.mpp_x / 2, svs.info.mpp_y / 2)
    region = Region(0, 0, 2048, 2048)
    transform = deformed(svs.info.grid().size_um, 45)
    tracemalloc.start()
    warp_block(svs, transform, grid, region, LINEAR, fill=255)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert peak < memory_mb(region, 3, "uint8")
