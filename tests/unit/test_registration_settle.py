"""A start climbs to where the likelihood is highest nearby."""

import math

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.settle import settled

GRID = Grid(200, 100, 4.0, 4.0)
CORNERS = GRID.corners_um()


def _near(truth, pixels):
    """Return a likelihood that falls with the distance from the truth, half as high at so many pixels."""

    def likelihood(transform):
        apart = np.abs(transform.map(CORNERS) - truth.map(CORNERS)).max() / GRID.mpp_x
        return 50.0 * math.exp(-math.log(2) * (apart / pixels) ** 2)

    return likelihood


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_start_that_a_search_left_a_pixel_and_a_degree_off_settles_on_the_truth(mirrored):
    start = Affine(np.diag([-1.0 if mirrored else 1.0, 1.0]), np.array([300.0, -40.0]))
    angle = math.radians(0.8)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    truth = start.after(Affine.about(turn, CORNERS.mean(axis=0), [3.0, -4.0]))
    found = settled(Composite((start,)), GRID, _near(truth, 4.0))
    assert found.nats > 49
    assert np.abs(found.transform.map(CORNERS) - truth.map(CORNERS)).max() < 0.2 * GRID.mpp_x


def test_a_start_where_nothing_can_be_told_stays_impossible():
    assert settled(Composite(), GRID, lambda _: -math.inf).nats == -math.inf
    assert settled(Composite(), GRID, lambda _: 0.0).nats == 0.0


def test_a_start_settles_on_another_scale_only_where_it_may():
    truth = Affine.about(1.012 * np.eye(2), CORNERS.mean(axis=0), [3.0, 2.0])
    rigid, similar = (settled(Composite(), GRID, _near(truth, 4.0), scaled=scaled) for scaled in (False, True))
    assert np.linalg.det(rigid.transform.parts[0].matrix) == pytest.approx(1.0)
    assert similar.nats > 49
    assert np.abs(similar.transform.map(CORNERS) - truth.map(CORNERS)).max() < 0.2 * GRID.mpp_x
