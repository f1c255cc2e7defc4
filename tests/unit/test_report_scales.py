"""Colour scales have round limits, keep order for every eye, and survive maps with nothing in them."""

from __future__ import annotations

import numpy as np
import pytest

from comir_batch.report import scales

NOTHING = np.full((3, 3), np.nan)


@pytest.mark.parametrize(
    ("most", "limit"), [(0.0, 1.0), (0.97, 1.0), (7.3, 8.0), (31.0, 40.0), (4e-4, 4e-4), (1234.0, 1500.0)]
)
def test_a_magnitude_ends_at_a_round_number(most, limit):
    assert scales.magnitude(np.array([[0.0, most]]), "µm").high == pytest.approx(limit)


def test_larger_magnitudes_are_lighter_so_that_every_eye_can_order_them():
    scale = scales.magnitude(np.array([[0.0, 1.0]]), "µm")
    light = scale.colours @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > -0.5).all()
    assert light[-1] - light[0] > 150


def test_a_change_is_even_about_zero():
    scale = scales.change(np.array([[-0.2, 0.7]]))
    assert scale.low == -scale.high == pytest.approx(-0.8)
    assert np.ptp(scale.paint(np.zeros((1, 1)))[0, 0]) < 10


def test_half_the_area_is_as_far_as_twice_the_area():
    scale = scales.determinant(np.array([[0.5, 1.0, 2.0]]))
    assert scale.low * scale.high == pytest.approx(1.0)
    assert scale.ticks(3) == pytest.approx((0.5, 1.0, 2.0))


def test_folding_has_a_colour_of_its_own():
    values = np.array([[-0.5, 0.0, 1.0]])
    painted = scales.determinant(values).paint(values)
    assert painted[0, 0].tolist() == painted[0, 1].tolist() == list(scales.FOLDED)
    assert painted[0, 2].tolist() != list(scales.FOLDED)


def test_similarities_of_two_maps_share_one_scale():
    scale = scales.similarity(np.array([0.1, np.nan]), np.array([-0.12, 0.55]))
    assert (scale.low, scale.high) == pytest.approx((-0.15, 0.6))


@pytest.mark.parametrize("scale", [scales.magnitude(NOTHING, ""), scales.change(NOTHING), scales.determinant(NOTHING)])
def test_a_map_of_nothing_has_a_scale(scale):
    assert scale.low < scale.high
    assert scale.paint(NOTHING).shape == (3, 3, 3)


def test_a_gradient_runs_from_the_first_to_the_last_colour():
    stops = scales.magnitude(np.ones((2, 2)), "µm").stops(5)
    assert len(stops) == 5
    assert stops[0] == "#440154"
