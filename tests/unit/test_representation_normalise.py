import numpy as np
import pytest

from comir_batch.core.card import Input
from comir_batch.core.errors import ModelError, TaskError
from comir_batch.representation.normalise import Range, intensity_range, to_input

RAMP = np.arange(101, dtype=np.uint16).reshape(1, 1, 101)
EVERYWHERE = np.ones((1, 101), bool)


def test_ranges_are_percentiles_of_the_tissue_alone():
    tissue = EVERYWHERE.copy()
    tissue[:, 51:] = False
    assert intensity_range(RAMP, tissue, Input(low=0, high=100)) == (Range(0.0, 50.0),)
    assert intensity_range(RAMP, EVERYWHERE, Input(low=10, high=90)) == (Range(10.0, 90.0),)


def test_each_channel_has_its_own_range_unless_they_are_reduced():
    pixels = np.concatenate([RAMP, 10 * RAMP, 0 * RAMP + 7])
    with pytest.raises(TaskError, match="channel 2 has no contrast"):
        intensity_range(pixels, EVERYWHERE, Input(low=0, high=100))
    assert intensity_range(pixels[:2], EVERYWHERE, Input(low=0, high=100)) == (Range(0, 100), Range(0, 1000))
    assert intensity_range(pixels, EVERYWHERE, Input(reduction="max", low=0, high=100)) == (Range(7, 1000),)
    assert intensity_range(pixels[:2], EVERYWHERE, Input(reduction="mean", low=0, high=100)) == (Range(0, 550),)


def test_no_tissue_is_an_error():
    with pytest.raises(TaskError, match="no tissue"):
        intensity_range(RAMP, ~EVERYWHERE, Input())


def test_scales_and_clips():
    found = to_input(np.array([[[-5, 0, 5, 10, 20]]], np.int16), Input(), (Range(0, 10),))
    assert found.dtype == np.float32
    assert found.tolist() == [[[0.0, 0.0, 0.5, 1.0, 1.0]]]


def test_pixels_that_are_not_finite_become_0():
    found = to_input(np.array([[[np.nan, np.inf, -np.inf, 10]]], np.float32), Input(), (Range(0, 10),))
    assert found.tolist() == [[[0.0, 0.0, 0.0, 1.0]]]


def test_takes_the_logarithm_after_scaling():
    found = to_input(np.array([[[0, 10]]], np.uint8), Input(log=True), (Range(0, 10),))
    assert np.allclose(found, np.log1p([[[0.0, 1.0]]]))


def test_the_signal_of_a_colour_scan_is_its_strongest_channel():
    blue = np.zeros((3, 2, 2), np.uint8)
    blue[2] = 40
    assert np.array_equal(to_input(blue, Input(reduction="max"), (Range(0, 80),)), np.full((1, 2, 2), 0.5, np.float32))


def test_a_part_is_normalised_as_the_whole():
    pixels = np.random.default_rng(0).integers(0, 4096, (2, 30, 30), np.uint16)
    ranges = intensity_range(pixels, np.ones((30, 30), bool), Input())
    whole = to_input(pixels, Input(), ranges)
    assert np.array_equal(to_input(pixels[:, 4:9, 7:20], Input(), ranges), whole[:, 4:9, 7:20])


def test_refuses_other_numbers_of_channels():
    with pytest.raises(ModelError, match="1 channels but 3 intensity ranges"):
        to_input(RAMP, Input(), (Range(0, 1),) * 3)


@pytest.mark.parametrize(("dtype", "largest"), [("uint8", 255.0), ("uint16", 65535.0), ("float32", 1.0)])
def test_the_full_scale_is_that_of_the_pixels_type_and_needs_no_tissue(dtype, largest):
    pixels = RAMP.astype(dtype)
    assert intensity_range(pixels, ~EVERYWHERE, Input(scaling="full")) == (Range(0.0, largest),)
    assert intensity_range(pixels, ~EVERYWHERE, Input(scaling="full", reduction="mean")) == (Range(0.0, largest),)


def test_a_full_scale_that_the_card_names_holds_for_every_channel():
    card = Input(scaling="full", full=50)
    ranges = intensity_range(np.concatenate([RAMP, RAMP]), EVERYWHERE, card)
    assert ranges == (Range(0.0, 50.0),) * 2
    assert to_input(RAMP, card, ranges[:1])[0, 0, [0, 25, 50, 100]].tolist() == [0.0, 0.5, 1.0, 1.0]
