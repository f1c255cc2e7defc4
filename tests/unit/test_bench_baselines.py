"""SIFT finds a known rigid transform of a picture, and none between pictures that have nothing in common."""

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.bench.baselines import sift_affine, sift_rigid
from comir_batch.core.geometry import Grid
from comir_batch.registration.images import RegistrationImage
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.known_rigid import corner_error, rigid

SIDE = 256


@pytest.fixture(scope="module")
def picture():
    return haematoxylin_dab_channels(immunohistochemistry())[0].astype(np.float32)


@pytest.mark.parametrize("turn", [8.0, 140.0])
def test_sift_finds_a_known_turn(picture, turn):
    truth = rigid(turn, (12.0, -7.0), SIDE)
    to_slide = np.array([[1, 0, 128.0], [0, 1, 128.0]])
    back = to_slide @ np.vstack([cv2.invertAffineTransform(truth), [0, 0, 1]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fixed, moving = (cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=flags) for matrix in (to_slide, back))
    valid = np.ones((SIDE, SIDE), bool)
    found = sift_rigid((fixed, moving), (valid, valid))
    assert corner_error(found, truth, SIDE) < 0.5
    assert np.allclose(found[:, :2] @ found[:, :2].T, np.eye(2))


def test_without_features_there_is_no_transform(picture):
    flat = np.zeros((SIDE, SIDE), np.float32)
    valid = np.ones((SIDE, SIDE), bool)
    assert sift_rigid((picture[:SIDE, :SIDE], flat), (valid, valid)) is None


def test_sift_finds_a_known_affine_transform_between_images_of_two_pixel_sizes(picture):
    matrix = np.array([[1.9, 0.2, 14.0], [-0.1, 2.1, 30.0]])  # fixed pixels to those of the picture
    fixed = cv2.warpAffine(picture, matrix, (220, 200), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)
    grids = Grid(220, 200, 4.0, 4.0, 10.0, 0.0), Grid(512, 512, 2.0, 2.0)
    images = [RegistrationImage(p, np.ones(p.shape, bool), g) for p, g in zip((fixed, picture), grids, strict=True)]
    found = sift_affine(*images)
    places = np.array([[20, 20], [200, 30], [100, 180]])
    expected = 2.0 * (places @ matrix[:, :2].T + matrix[:, 2])
    assert np.allclose(found.map(grids[0].to_um(places)), expected, atol=2.0)


def test_unrelated_images_have_no_affine_transform(picture):
    noise = np.random.default_rng(0).normal(size=picture.shape).astype(np.float32)
    grid = Grid(512, 512, 1.0, 1.0)
    one, other = (RegistrationImage(p, np.ones(p.shape, bool), grid) for p in (picture, noise))
    assert sift_affine(one, other) is None
