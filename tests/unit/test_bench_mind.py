"""Self-similarity finds a turn between modalities that correlation cannot compare."""

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import Motion, move
from comir_batch.bench.mind import descriptor, mind_rigid
from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.registration.images import RegistrationImage
from comir_batch.training.ihc import haematoxylin_dab_channels

CONFIG = RegisterConfig(search_side=96, angles=24)


@pytest.fixture(scope="module")
def picture():
    return haematoxylin_dab_channels(immunohistochemistry())[0][:192, :192].astype(np.float32)


@pytest.mark.parametrize(("angle", "mirrored"), [(20.0, False), (163.0, True)])
def test_a_turn_of_an_image_with_other_intensities_is_found(picture, angle, mirrored):
    grid = Grid(192, 192, 1.0, 1.0)
    motion = Motion(angle, (9.0, -4.0), mirrored, amplitude_um=1e-6)
    stack = np.stack([np.abs(picture - 120), np.ones_like(picture)])
    (moved, inside), moved_grid, truth = move(stack, grid, motion)
    fixed = RegistrationImage(picture, np.ones(grid.shape, bool), grid)
    found = mind_rigid(fixed, RegistrationImage(moved, inside > 0.9, moved_grid), CONFIG)
    points = grid.corners_um()
    assert np.linalg.norm(found.map(points) - truth.map(points), axis=1).mean() < 4.0


def test_descriptors_do_not_know_brightness_and_contrast(picture):
    everywhere = np.ones(picture.shape, bool)
    one, other = descriptor(picture, everywhere), descriptor(300 - 2 * picture, everywhere)
    assert one.shape == (4, *picture.shape)
    assert np.allclose(one, other, atol=1e-4)
    assert np.allclose(one.max(axis=0), 1)
    assert one.min() >= 0


def test_a_descriptor_turns_with_its_neighbours(picture):
    everywhere = np.ones(picture.shape, bool)
    turned = descriptor(np.ascontiguousarray(picture.T), everywhere).transpose(0, 2, 1)
    right, left, down, up = descriptor(picture, everywhere)
    assert np.allclose(turned, np.stack([down, up, right, left]), atol=1e-5)


def test_flat_images_have_no_preference():
    flat = np.full((64, 64), 3.0, np.float32)
    assert np.allclose(descriptor(flat, np.ones((64, 64), bool)), 1)
    assert cv2.minMaxLoc(descriptor(flat, np.zeros((64, 64), bool))[0])[0] == 1.0
