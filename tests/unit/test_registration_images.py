"""What registration sees is validated at birth."""

import numpy as np
import pytest

from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid
from comir_batch.registration.images import RegistrationImage, View, seconded

GRID = Grid(6, 4, 0.5, 2.0, 10.0, 20.0)


def _image(mask=None, pixels=None):
    pixels = np.arange(24, dtype=np.float32).reshape(4, 6) if pixels is None else pixels
    return RegistrationImage(pixels, np.ones((4, 6), dtype=bool) if mask is None else mask, GRID)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        _image(mask=np.ones((4, 5), dtype=bool))


def test_an_empty_mask_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        _image(mask=np.zeros((4, 6), dtype=bool))


def test_only_pixels_inside_the_mask_must_be_finite():
    pixels, mask = np.full((4, 6), np.nan, dtype=np.float32), np.zeros((4, 6), dtype=bool)
    pixels[1, 2], mask[1, 2] = 1.0, True
    assert _image(mask, pixels).pixels[1, 2] == 1.0
    mask[1, 3] = True
    with pytest.raises(ValueError, match="finite"):
        _image(mask, pixels)


def test_a_crop_keeps_its_place():
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    cropped = _image(mask).cropped()
    assert cropped.grid == Grid(3, 2, 0.5, 2.0, 11.0, 22.0)
    np.testing.assert_array_equal(cropped.pixels, [[8, 9, 10], [14, 15, 16]])


@pytest.fixture
def views():
    one, other = _image(), _image(pixels=np.ones((4, 6), dtype=np.float32))
    return View("comir", "ncc", one, other), View("raw", "mi", one, other)


def test_representations_get_the_raw_images_beside_them(views):
    comir, raw = seconded(views, "raw")
    assert (comir.second, raw.second) == ("raw", "none")
    assert comir.beside is raw is views[1]
    assert comir.swapped().beside.fixed is raw.moving
    assert comir.alone().second == "none"
    assert seconded(views[:1], "raw") == views[:1]  # without raw images, nothing beside
    assert seconded(views, "none") == views


def test_landmarks_change_sides_with_their_view(views):
    fixed, moving = np.zeros((3, 2)), np.ones((3, 2))
    for view in seconded(views, "landmarks", (fixed, moving)):
        assert view.second == "landmarks"
        assert view.swapped().landmarks[0] is moving
        assert view.swapped().fixed is view.moving
    with pytest.raises(ConfigError, match="there are none"):
        seconded(views, "landmarks")
