"""SIFT features that agree beyond chance give starts, as images lie and mirrored; those of strangers give none."""

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.registration.features import feature_starts
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.starts import Starts
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.known_rigid import rigid

SIDE = 256
PLACES = np.array([[20.0, 30], [230, 40], [120, 220]])


@pytest.fixture(scope="module")
def picture():
    return haematoxylin_dab_channels(immunohistochemistry())[0].astype(np.float32)


def _view(picture, truth, mpp=(0.5, 0.5), name="comir"):
    to_picture = np.array([[1, 0, 128.0], [0, 1, 128.0]])
    back = to_picture @ np.vstack([cv2.invertAffineTransform(truth), [0, 0, 1]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    fixed, moving = (cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=flags) for matrix in (to_picture, back))
    grids = (Grid(SIDE, SIDE, size, size, 10.0, -5.0) for size in mpp)
    whole = np.ones((SIDE, SIDE), bool)
    images = (RegistrationImage(pixels, whole, grid) for pixels, grid in zip((fixed, moving), grids, strict=True))
    return View(name, "ncc", *images)


def _error_px(view, truth, transform):
    expected = PLACES @ truth[:, :2].T + truth[:, 2]
    found = view.moving.grid.to_pixels(transform.map(view.fixed.grid.to_um(PLACES)))
    return np.linalg.norm(found - expected, axis=1).max()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [8.0, 140.0])
def test_a_known_turn_is_found_and_no_mirror_image_of_it(picture, turn, mirrored):
    truth = rigid(turn, (12.0, -7.0), SIDE, mirrored=mirrored)
    view = _view(picture, truth)
    (start,) = feature_starts(view, RegisterConfig())
    assert start.mirrored == mirrored
    assert start.by == "features"
    assert start.score > 50
    assert _error_px(view, truth, start.transform) < 1
    linear = start.transform.matrix @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    assert np.allclose(linear @ linear.T, np.eye(2))
    assert np.isclose(np.degrees(np.arctan2(linear[1, 0], linear[0, 0])) % 360, start.angle)


def test_a_size_is_found_where_it_may_be(picture):
    truth = rigid(30.0, (5.0, 4.0), SIDE)
    view = _view(picture, truth, mpp=(0.5, 0.55))  # as if the second image were larger
    assert list(feature_starts(view, RegisterConfig())) == []
    (start,) = feature_starts(view, RegisterConfig(scales=(0.9, 1.0, 1.1)))
    assert np.isclose(np.sqrt(np.linalg.det(start.transform.matrix)), 1.1, atol=0.01)
    assert _error_px(view, truth, start.transform) < 1


def test_strangers_have_no_start(picture):
    elsewhere = np.roll(picture, 256, axis=(0, 1))
    one, other = (_view(each, rigid(0.0, (0.0, 0.0), SIDE)) for each in (picture, elsewhere))
    strangers = View("comir", "ncc", one.fixed, other.moving)
    assert list(feature_starts(strangers, RegisterConfig())) == []
    with pytest.raises(RegistrationError, match=r"no features agree; set register\.starts"):
        Starts([strangers], RegisterConfig(starts="features")).found()


@pytest.mark.parametrize("by", ["features", "both"])
def test_what_features_find_is_settled_and_compared(picture, by):
    truth = rigid(100.0, (12.0, -7.0), SIDE)
    view = _view(picture, truth)
    config = RegisterConfig(starts=by, angles=24)
    best, *_ = Starts([view], config).found()
    assert _error_px(view, truth, best.transform) < 1
    assert by == "both" or best.candidate.by == "features"
