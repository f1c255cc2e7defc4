"""Warped pixels: right places, right level, right dtype, and the same however the image is cut."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from comir_batch.core.config import WarpConfig
from comir_batch.core.errors import TaskError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.warp.reduce import reduce_area
from comir_batch.warp.resample import memory_mb, warp_array, warp_block
from comir_batch.warp.source import choose_level

LINEAR = WarpConfig()


class ArraySlide:
    """A slide in memory with a pyramid; it refuses what a file would and remembers what was read."""

    def __init__(self, pixels, mpp=0.5, downsamples=(1,)):
        self._levels = [reduce_area(pixels, d) for d in downsamples]
        levels = tuple(
            Level(p.shape[2], p.shape[1], float(d), float(d)) for p, d in zip(self._levels, downsamples, strict=True)
        )
        names = tuple(str(c) for c in range(len(pixels)))
        self.info = SlideInfo(levels, names, pixels.dtype.name, mpp, mpp, "dark", "memory")
        self.regions = []

    def read(self, region):
        level = self.info.levels[region.level]
        assert region.within(level.width, level.height) == region
        self.regions.append(region)
        return self._levels[region.level][:, *region.slices].copy()


def texture(shape, seed=0, sigma=2.0):
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(c, (0, 0), sigma) for c in noise])
    return (smooth - smooth.min()) / np.ptp(smooth)


def rotation(degrees, centre, scale=1.0, *, mirrored=False):
    a = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return Affine.about(matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0]), centre, [3.3, -2.7])


def bspline(size, amplitude=2.0):
    coefficients = np.random.default_rng(3).normal(0, amplitude, (2, int(size / 32) + 40, int(size / 32) + 40))
    return BSpline(np.full(2, -20.0 * 32), np.full(2, 32.0), coefficients)


def whole(grid):
    return Region(0, 0, grid.width, grid.height)


def reference(pixels, moving_grid, transform, fixed_grid, region):
    """Linear interpolation at exact float64 coordinates, and which of them lie inside."""
    y, x = np.mgrid[region.y0 : region.y1, region.x0 : region.x1]
    at = moving_grid.to_pixels(transform.map(fixed_grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1))))
    coordinates = at[:, ::-1].T
    values = [ndimage.map_coordinates(c.astype(np.float64), coordinates, order=1, mode="nearest") for c in pixels]
    inside = (at > -0.5).all(axis=1) & (at < np.array([moving_grid.width, moving_grid.height]) - 0.5).all(axis=1)
    return np.reshape(values, (len(pixels), *region.shape)), inside.reshape(region.shape)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("bent", [False, True])
def test_agrees_with_scipy_in_every_dtype(dtype, bent):
    top = 1.0 if np.dtype(dtype).kind == "f" else min(np.iinfo(dtype).max, 2**30)
    pixels = (texture((1, 300, 340)) * top).astype(dtype)
    slide, grid = ArraySlide(pixels), Grid(320, 280, 0.5, 0.5)
    transform = Composite((rotation(25, [80, 70]), *([bspline(170)] if bent else [])))
    warped = warp_block(slide, transform, grid, whole(grid), LINEAR, fill=0)
    expected, inside = reference(pixels, slide.info.grid(), transform, grid, whole(grid))
    assert warped.dtype == pixels.dtype
    difference = np.abs(warped.astype(np.float64) - expected)[:, inside]
    slope = np.abs(np.gradient(pixels[0].astype(np.float64))).max()
    assert difference.max() <= 0.5 * (np.dtype(dtype).kind != "f") + 0.04 * slope
    assert (warped[:, ~inside] == 0).mean() > 0.999


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_affine_transforms_are_interpolated_as_bent_ones_are(dtype, interpolation):
    pixels = (texture((1, 700, 640)) * 255).astype(dtype)
    slide, grid = ArraySlide(pixels), Grid(800, 750, 0.5, 0.5)
    turned = rotation(25, [150, 140], 0.9)
    flat = BSpline(np.full(2, -320.0), np.full(2, 32.0), np.zeros((2, 40, 40)))
    affine, bent = (
        warp_block(slide, Composite(parts), grid, whole(grid), WarpConfig(interpolation=interpolation), fill=9)
        for parts in ((turned,), (turned, flat))
    )
    difference = np.abs(affine.astype(np.float64) - bent)
    assert difference.max() <= (1 if np.dtype(dtype).kind != "f" else 0.05)
    assert (difference > 0.05).mean() < 1e-3


def test_far_out_an_affine_transform_needs_no_more_at_once_than_a_bent_one():
    slide = ArraySlide(np.full((1, 4000, 30_000), 9, np.uint8))
    grid = Grid(500, 67, 30.0, 30.0)
    warped = warp_block(slide, Composite(), grid, whole(grid), LINEAR, fill=0)
    assert max(region.width for region in slide.regions) <= 8192
    assert max(region.width * region.height for region in slide.regions) <= 2**22
    assert (warped[:, 1:-2, 1:-2] == 9).all()


def test_identity_gives_identical_pixels():
    pixels = (texture((3, 200, 150)) * 255).astype(np.uint8)
    slide, grid = ArraySlide(pixels, 0.228), Grid(150, 200, 0.228, 0.228)
    np.testing.assert_array_equal(warp_block(slide, Composite(), grid, whole(grid), LINEAR, fill=255), pixels)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("bent", [False, True])
def test_blocks_are_the_whole_cut_up(interpolation, mirrored, bent):
    pixels = (texture((2, 1300, 1200)) * 255).astype(np.uint8)
    slide, grid = ArraySlide(pixels), Grid(1150, 1100, 0.5, 0.5)
    transform = Composite((rotation(25, [280, 280], 1.03, mirrored=mirrored), *([bspline(600)] if bent else [])))
    config = WarpConfig(interpolation=interpolation)
    expected = warp_block(slide, transform, grid, whole(grid), config, fill=7)
    for region in (Region(3, 5, 401, 333), Region(1000, 900, 1150, 1100), Region(1023, 1023, 1025, 1026)):
        found = warp_block(slide, transform, grid, region, config, fill=7)
        np.testing.assert_array_equal(found, expected[:, *region.slices])


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_quarter_turns_and_mirrors_are_permutations(steps, mirrored):
    pixels = (texture((1, 90, 90)) * 65535).astype(np.uint16)
    centre = np.full(2, 89 * 0.5 / 2)
    linear = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), steps) @ np.diag(
        [-1.0 if mirrored else 1.0, 1.0]
    )
    grid = Grid(90, 90, 0.5, 0.5)
    transform = Composite((Affine.about(linear, centre, [0, 0]),))
    warped = warp_block(ArraySlide(pixels), transform, grid, whole(grid), LINEAR, fill=0)
    turned = np.rot90(pixels, steps, axes=(1, 2))
    np.testing.assert_array_equal(warped, turned[..., ::-1] if mirrored else turned)


def test_a_coarser_fixed_grid_reads_a_coarser_level():
    pixels = (texture((1, 1024, 1024), sigma=12.0) * 255).astype(np.uint8)
    slide = ArraySlide(pixels, mpp=0.25, downsamples=(1, 4))
    grid = Grid(256, 256, 1.0, 1.0, 0.375, 0.375)
    warped = warp_block(slide, Composite(), grid, whole(grid), LINEAR, fill=0)
    assert {region.level for region in slide.regions} == {1}
    np.testing.assert_array_equal(warped, reduce_area(pixels, 4))


def test_where_levels_are_missing_pixels_are_averaged_not_skipped():
    pixels = (np.random.default_rng(0).random((1, 1024, 1024)) * 255).astype(np.uint8)
    grid = Grid(128, 128, 2.0, 2.0, 0.875, 0.875)
    warped = warp_block(ArraySlide(pixels, mpp=0.25), Composite(), grid, whole(grid), LINEAR, fill=0)
    np.testing.assert_array_equal(warped, reduce_area(pixels, 8))


def test_level_choice():
    def info(*downsamples):
        levels = tuple(Level(int(4096 / d), int(4096 / d), d, d) for d in downsamples)
        return SlideInfo(levels, ("0",), "uint8", 0.25, 0.25, "dark", "memory")

    assert choose_level(info(1.0, 4.0, 16.0), 1.0) == (0, 1)
    assert choose_level(info(1.0, 4.0, 16.0), 0.3) == (0, 1)
    assert choose_level(info(1.0, 4.0, 16.0), 3.5) == (0, 3)
    assert choose_level(info(1.0, 4.0003, 16.0), 3.99) == (1, 1)
    assert choose_level(info(1.0, 4.0, 16.0), 40.0) == (2, 2)


def test_another_pixel_size_and_pyramid():
    pixels = (texture((1, 900, 900), sigma=6.0) * 255).astype(np.uint8)
    slide, grid = ArraySlide(pixels, mpp=0.3, downsamples=(1, 2)), Grid(250, 260, 0.9, 0.9)
    transform = Composite((rotation(25, [110, 120], 0.95), bspline(260)))
    warped = warp_block(slide, transform, grid, whole(grid), LINEAR, fill=0)
    level = reduce_area(pixels, 2)
    expected, inside = reference(level, slide.info.grid(1), transform, grid, whole(grid))
    assert np.abs(warped.astype(np.float64) - expected)[:, inside].max() <= 1


def test_blocks_outside_the_moving_slide_are_fill_and_nothing_is_read():
    slide = ArraySlide(np.zeros((3, 100, 100), np.uint8))
    grid = Grid(400, 400, 0.5, 0.5)
    warped = warp_block(slide, Composite(), grid, Region(256, 120, 400, 300), LINEAR, fill=255)
    assert (warped == 255).all()
    assert slide.regions == []


def test_fill_begins_at_the_outer_border_of_the_last_pixel():
    slide, grid = ArraySlide(np.full((1, 10, 10), 9, np.uint8), mpp=1.0), Grid(30, 10, 0.5, 1.0)
    warped = warp_block(slide, Composite(), grid, whole(grid), LINEAR, fill=200)
    assert (warped[..., :20] == 9).all()
    assert (warped[..., 20:] == 200).all()


def test_only_the_footprint_is_read_and_never_too_much_at_once():
    slide = ArraySlide(np.zeros((1, 6000, 6000), np.uint8))
    grid = Grid(6000, 6000, 0.5, 0.5)
    warp_block(slide, Composite((rotation(25, [1500, 1500]),)), grid, Region(2048, 2048, 2304, 2304), LINEAR, fill=0)
    area = sum(region.width * region.height for region in slide.regions)
    assert area < 2 * (256 * 1.4) ** 2
    slide.regions.clear()
    folded = BSpline(np.full(2, -800.0), np.full(2, 400.0), np.random.default_rng(0).normal(0, 900, (2, 13, 13)))
    warp_block(slide, Composite((folded,)), grid, Region(1024, 1024, 2048, 2048), LINEAR, fill=0)
    assert max(region.width * region.height for region in slide.regions) <= 2**22


def test_a_dtype_that_cannot_be_interpolated_is_refused():
    grid = Grid(10, 10, 1.0, 1.0)
    with pytest.raises(TaskError, match="cannot warp uint64 pixels: convert"):
        warp_block(ArraySlide(np.zeros((1, 10, 10), np.uint64)), Composite(), grid, whole(grid), LINEAR, fill=0)


def test_arrays_in_memory_warp_like_slides():
    pixels = (texture((3, 240, 250)) * 255).astype(np.uint8)
    grid, transform = Grid(200, 210, 0.5, 0.5), Composite((rotation(25, [60, 60]),))
    found = warp_array(pixels, Grid(250, 240, 0.5, 0.5), transform, grid, fill=3)
    np.testing.assert_array_equal(found, warp_block(ArraySlide(pixels), transform, grid, whole(grid), LINEAR, fill=3))


def test_memory_grows_with_the_block_alone():
    small, large = memory_mb(Region(0, 0, 1024, 1024), 3, "uint8"), memory_mb(Region(0, 0, 4096, 4096), 3, "uint8")
    assert small < large < small + 50
    assert memory_mb(Region(9999, 9999, 11023, 11023), 3, "uint8") == small
