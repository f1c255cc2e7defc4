"""Alpha-AMD, the comparison, finds small motions between images that look alike."""

import math

import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.bench.alpha_amd import alpha_amd_rigid
from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.geometry import Grid
from comir_batch.registration.images import RegistrationImage
from comir_batch.training.ihc import haematoxylin_dab_channels

MPP = 0.5  # µm, so that pixels taken for µm are found out


@pytest.fixture(scope="module")
def pair():
    """An image, the same turned by 17 degrees and shifted, and where points of the first lie on the second."""
    picture = haematoxylin_dab_channels(immunohistochemistry())[0][:200, :240].astype(np.float32)
    grid = Grid(240, 200, MPP, MPP)
    motion = Motion(17.0, (6.0, -3.0), amplitude_um=1e-6)
    (moved, inside), moved_grid, truth = move(np.stack([picture, np.ones_like(picture)]), grid, motion)
    fixed = RegistrationImage(picture, np.ones(grid.shape, bool), grid)
    return fixed, RegistrationImage(moved, inside > 0.9, moved_grid), truth


def distance_px(found, truth, grid):
    points = grid.corners_um()
    return np.linalg.norm(found.map(points) - truth.map(points), axis=1).mean() / MPP


def test_a_turn_and_a_shift_are_found_within_two_percent_of_the_width(pair):
    fixed, moving, truth = pair
    assert distance_px(alpha_amd_rigid(fixed, moving), truth, fixed.grid) < 0.02 * 240


def test_the_start_that_comes_nearest_wins_and_far_ones_do_not_get_there(pair):
    fixed, moving, truth = pair
    far = alpha_amd_rigid(fixed, moving, starts=(math.pi,))
    assert distance_px(far, truth, fixed.grid) > 0.2 * 240
    best = alpha_amd_rigid(fixed, moving, starts=(math.pi, 0.4))
    assert distance_px(best, truth, fixed.grid) < 0.02 * 240


def test_the_same_images_give_the_same_transform(pair):
    fixed, moving, _ = pair
    first, second = (alpha_amd_rigid(fixed, moving, starts=(0.0,)).parts[0] for _ in range(2))
    assert np.array_equal(first.matrix, second.matrix)
    assert np.array_equal(first.offset, second.offset)
