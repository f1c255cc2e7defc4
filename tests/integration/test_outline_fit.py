"""Whole sections of which only the outlines agree are registered, their size too, by real elastix."""

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.outline import outlines
from comir_batch.registration.register import register
from comir_batch.training.ihc import haematoxylin_dab_channels

pytestmark = pytest.mark.slow

SIDE = 384
GRID = Grid(SIDE, SIDE, 1.0, 1.0)
GLASS = 250.0
CORNERS = np.array([[70, 130], [180, 80], [300, 105], [315, 215], [225, 235], [200, 300], [115, 290], [140, 215]])
CONFIG = RegisterConfig(search_side=128, angles=60, iterations=60, samples=1024)


@pytest.fixture(scope="module")
def truth():
    """Turned by two right angles, and smaller by 4 and by 9 percent."""
    middle = GRID.corners_um().mean(axis=0)
    return Affine.about(np.diag([-0.96, -0.91]), middle, (8.0, -5.0))


def section(corners, texture):
    """Return stained tissue on bright glass; its mask ends where the tissue does."""
    mask = cv2.fillPoly(np.zeros(GRID.shape, np.uint8), [np.rint(corners).astype(np.int32)], 1).astype(bool)
    return RegistrationImage(np.where(mask, texture, GLASS).astype(np.float32), mask, GRID)


@pytest.fixture(scope="module")
def view(truth):
    """Return two sections whose insides are of two places."""
    stain = haematoxylin_dab_channels(immunohistochemistry())[0]
    here, elsewhere = stain[:SIDE, :SIDE], np.rot90(stain[-SIDE:, :SIDE])
    return View("raw", "mi", section(CORNERS, here), section(truth.map(CORNERS.astype(float)), elsewhere))


def error_um(found, truth):
    points = GRID.to_um(np.argwhere(section(CORNERS, 0.0).mask)[::97, ::-1])
    return float(np.median(np.linalg.norm(found.map(points) - truth.map(points), axis=1)))


def test_the_size_follows_from_the_outline(view, truth, tmp_path):
    found = register(
        [view], CONFIG, deformable=False, initial=None, folder=tmp_path / "with", outline=outlines(view)
    ).transform
    without = register([view], CONFIG, deformable=False, initial=None, folder=tmp_path / "without").transform
    assert error_um(found, truth) < 2.5
    assert error_um(without, truth) > 5


def test_the_way_back_fits_as_well(view, truth, tmp_path):
    found = register([view], CONFIG, deformable=False, initial=None, folder=tmp_path, outline=outlines(view))
    assert error_um(found.backward.transform.parts[0].inverse(), truth) < 2.5
