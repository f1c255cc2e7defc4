"""Block refinement: a smooth displacement is found from offsets, outliers are left out, and nothing folds."""

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration.refine import Blocks, State, refine

GRID = Grid(1280, 960, 0.5, 0.5, 20.0, -30.0)
SIDE = 64
SHAPE = (15, 20)
BEFORE = Composite((Affine(np.array([[0.9, -0.1], [0.1, 0.9]]), [5.0, 3.0]),))


def smooth(points, amplitude_um=6.0):
    """Return the displacement in µm at ``(..., 2)`` points: a wave of 500 µm."""
    return amplitude_um * np.stack([np.sin(points[..., 1] / 80), np.cos(points[..., 0] / 80)], axis=-1)


def blocks(displacement, tried=None):
    everywhere = np.ones(SHAPE, dtype=bool) if tried is None else tried
    empty = Blocks(GRID, SIDE, np.zeros((*SHAPE, 2)), everywhere)
    offsets = displacement(empty.centres_um) / 0.5
    return Blocks(GRID, SIDE, np.where(everywhere[..., None], offsets, np.nan), everywhere)


def inner(step=7):
    pixels = np.stack(np.meshgrid(np.arange(32, 1248, step), np.arange(32, 928, step)), axis=-1).reshape(-1, 2)
    return GRID.to_um(pixels)


def test_centres_are_those_of_the_blocks_pixels():
    centres = blocks(smooth).centres_um
    assert centres.shape == (*SHAPE, 2)
    assert centres[0, 0] == pytest.approx(GRID.to_um([[31.5, 31.5]])[0])
    assert centres[2, 3] == pytest.approx(GRID.to_um([[3 * 64 + 31.5, 2 * 64 + 31.5]])[0])


def test_a_smooth_displacement_is_found_between_the_blocks_and_comes_before_the_transform():
    refined = refine(BEFORE, blocks(smooth))
    points = inner()
    expected = BEFORE.map(points + smooth(points))
    error = np.linalg.norm(refined.transform.map(points) - expected, axis=1)
    unrefined = np.linalg.norm(BEFORE.map(points) - expected, axis=1)
    assert np.median(error) < 0.1
    assert np.median(unrefined) > 4
    assert error.max() < 1.0
    assert (refined.states == State.USED).all()
    assert refined.stiffness == pytest.approx(0.02)
    spline, affine = refined.transform.parts
    assert isinstance(spline, BSpline)
    assert affine is BEFORE.parts[0]


def test_outliers_and_failed_blocks_are_counted_and_change_little():
    random = np.random.default_rng(0)
    tried = np.ones(SHAPE, dtype=bool)
    tried[:3, :3] = False
    found = blocks(smooth, tried)
    offsets = found.offsets.copy()
    bad = random.choice(np.flatnonzero(tried), 60, replace=False)
    wrong, lost = bad[:30], bad[30:]
    offsets.reshape(-1, 2)[wrong] += random.uniform(15, 23, (30, 2)) * random.choice([-1, 1], (30, 2))
    offsets.reshape(-1, 2)[lost] = np.nan
    refined = refine(BEFORE, Blocks(GRID, SIDE, offsets, tried))
    states = refined.states.ravel()
    assert (states[wrong] == State.OUTLIER).all()
    assert (states[lost] == State.FAILED).all()
    assert (refined.states[:3, :3] == State.EMPTY).all()
    assert (states == State.USED).sum() >= 291 - 60 - 10
    points = inner()
    error = np.linalg.norm(refined.transform.map(points) - BEFORE.map(points + smooth(points)), axis=1)
    assert np.quantile(error, 0.9) < 0.7


def test_noise_is_smoothed():
    random = np.random.default_rng(1)
    found = blocks(smooth)
    noisy = Blocks(GRID, SIDE, found.offsets + random.normal(0, 1.0, found.offsets.shape), found.tried)
    refined = refine(Composite(), noisy)
    points = inner()
    error = refined.transform.map(points) - points - smooth(points)
    assert error.std() < 0.7 * 0.5  # a pixel is half a µm


def test_what_would_fold_is_made_stiffer_until_it_does_not():
    random = np.random.default_rng(2)

    def torn(centres):
        return np.where(centres[..., :1] > 300, 44.0, -44.0) * [-1.0, 0.0] + random.normal(0, 0.2, centres.shape)

    refined = refine(Composite(), blocks(torn))
    assert refined.stiffness > 0.02
    assert refined.transform.jacobian_determinant(inner(3), 0.5).min() > 0.1


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_blocks_change_nothing_and_say_so(count):
    offsets = np.full((*SHAPE, 2), np.nan)
    offsets[4, :count] = 3.0
    refined = refine(BEFORE, Blocks(GRID, SIDE, offsets, np.ones(SHAPE, dtype=bool)))
    assert refined.transform is BEFORE
    assert refined.stiffness == 0
    assert (refined.states == State.FAILED).sum() == 300 - count


def test_blocks_that_fold_however_stiff_refine_nothing():
    def collapsed(centres):
        return -1.5 * (centres - centres.reshape(-1, 2).mean(axis=0)) * [1.0, 0.0]

    refined = refine(BEFORE, blocks(collapsed))
    assert refined.transform is BEFORE
    assert refined.stiffness == 0
    assert (refined.states == State.USED).sum() > 200
