"""Pictures keep their promises: colours of overlays, squares of checkerboards, maps with holes, JPEGs that decode."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest

from comir_batch.report import figures, scales

RAMP = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (48, 1))


def test_agreement_is_grey_and_each_side_alone_has_its_colour():
    fixed, moving = np.zeros((30, 30)), np.zeros((30, 30))
    fixed[:, :20] = 1.0
    moving[:, 10:] = 1.0
    picture = figures.overlay(fixed, moving)
    assert picture[15, 5].tolist() == [0, 255, 0]
    assert picture[15, 15].tolist() == [255, 255, 255]
    assert picture[15, 25].tolist() == [255, 0, 255]


def test_brightfield_tissue_lights_up_in_an_overlay():
    slide = np.full((40, 40, 3), 240, np.uint8)
    slide[10:30, 10:30] = (120, 60, 130)
    picture = figures.overlay(slide, np.zeros((40, 40)), "brightfield")
    assert picture[20, 20].tolist() == [0, 255, 0]
    assert picture[2, 2].tolist() == [0, 0, 0]


def test_images_on_one_scale_keep_it():
    low, high = np.full((8, 8), 0.25), np.full((8, 8), 0.5)
    assert figures.overlay(low, high, stretch=False)[0, 0].tolist() == [128, 64, 128]
    assert figures.displayed(low, stretch=False)[0, 0].tolist() == [64, 64, 64]


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(48, 64\) and \(48, 63\)"):
        figures.overlay(RAMP, RAMP[:, 1:])
    with pytest.raises(ValueError, match="do not lie together"):
        figures.checkerboard(RAMP, RAMP[1:])


def test_checkerboard_alternates_from_the_fixed_image():
    fixed, moving = np.full((40, 80, 3), 255, np.uint8), np.zeros((40, 80, 3), np.uint8)
    board = figures.checkerboard(fixed, moving, squares=8)
    assert board[::10, ::10, 0].tolist() == [[255, 0] * 4, [0, 255] * 4] * 2


def test_dim_colours_brighten_together_and_bright_ones_stay():
    dim = np.zeros((10, 10, 3), np.uint8)
    dim[...] = (10, 50, 0)
    assert figures.displayed(dim)[0, 0].tolist() == [51, 255, 0]
    bright = np.full((10, 10, 3), 255, np.uint8)
    assert np.array_equal(figures.displayed(bright), bright)


def test_a_map_shows_what_is_under_it_where_it_says_nothing():
    values = np.array([[1.0, np.nan], [0.0, 1.0]])
    picture = figures.heat_map(values, scales.magnitude(values, "µm"), under=np.ones((64, 64)), side=64)
    assert picture.shape == (64, 64, 3)
    assert len(set(picture[10, 50].tolist())) == 1
    assert picture[10, 10].tolist() == picture[50, 50].tolist() != picture[50, 10].tolist()


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 50), (40, 20)), ((30, 40), (30, 40)), ((1, 900, 3), (1, 40, 3))]
)
def test_fit_reduces_and_never_enlarges(shape, expected):
    assert figures.fit(np.zeros(shape, np.uint8), 40).shape == expected


def test_a_data_uri_is_the_picture():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 200
    kind, _, encoded = figures.data_uri(picture).partition(",")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert kind == "data:image/jpeg;base64"
    assert np.abs(decoded[..., ::-1].astype(int) - picture).max() < 12


def test_one_pixel_of_misalignment_survives_the_jpeg():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 1] = 255
    stripes[:, 1::2] = (255, 0, 255)
    encoded = base64.b64decode(figures.data_uri(stripes).partition(",")[2])
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert decoded[:, ::2, 1].mean() > 200
    assert decoded[:, 1::2, 1].mean() < 55


def test_a_panel_has_its_images_in_rows_below_their_titles():
    one = figures.panel([RAMP], ["Fixed, 0.5 µm"], height=96)
    four = figures.panel([RAMP] * 4, ["a", "b", "c", "a title that is wider than its image"], height=96, columns=2)
    assert one[:30].min() < 128
    assert four.shape[0] > 1.8 * one.shape[0]
    assert four.shape[1] > 2 * one.shape[1] - 40


def test_a_title_that_utf_8_cannot_carry_is_escaped():
    images = [np.zeros((40, 50))]
    odd = "caf\udce9.tif"
    assert np.array_equal(figures.panel(images, [odd]), figures.panel(images, [r"caf\udce9.tif"]))


@pytest.mark.parametrize("count", [0, 2])
def test_a_panel_needs_a_title_for_each_image(count):
    with pytest.raises(ValueError, match="make no panel"):
        figures.panel([RAMP] * count, ["one"] * (count > 0))


def test_an_image_of_one_value_does_not_divide_by_zero():
    assert figures.displayed(np.full((5, 5), 0.5)).tolist() == np.full((5, 5, 3), 128).tolist()
