"""Raw images less their slow changes: what is fine stays, and starts are told apart by it."""

import cv2
import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.registration.evened import evened, raw_view
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.starts import Starts, margin

SIDE = 320
GRID = Grid(SIDE, SIDE, 1.0, 1.0)
WHOLE = np.ones(GRID.shape, dtype=bool)


def noise(sigma, seed):
    plane = np.random.default_rng(seed).normal(size=GRID.shape).astype(np.float32)
    blurred = cv2.GaussianBlur(plane, (0, 0), sigma)
    return blurred / blurred.std()


def image(pixels, mask=WHOLE):
    return RegistrationImage(pixels.astype(np.float32), mask, GRID)


def off(start):
    """Return how far from the identity, in pixels, a start lays the corner that is furthest off."""
    corners = GRID.corners_um()
    return np.linalg.norm(start.transform.map(corners) - corners, axis=1).max()


def test_slow_changes_go_and_fine_ones_stay():
    fine = noise(2, 0)
    slope = np.linspace(0, 40, SIDE, dtype=np.float32)[None, :] * np.ones((SIDE, 1), np.float32)
    inside = (slice(40, -40), slice(40, -40))
    found = evened(image(fine + slope)).pixels[inside]
    assert np.corrcoef(found.ravel(), fine[inside].ravel())[0, 1] > 0.97
    assert abs(found[:, :60].mean() - found[:, -60:].mean()) < 0.1


def test_what_lies_outside_the_tissue_has_no_say_in_it():
    tissue = np.zeros(GRID.shape, dtype=bool)
    tissue[60:250, 80:300] = True
    fine = noise(2, 0)
    there, elsewhere = (evened(image(np.where(tissue, fine, other), tissue)) for other in (0.0, 1000.0))
    assert np.array_equal(there.pixels[tissue], elsewhere.pixels[tissue])
    assert np.array_equal(there.mask, tissue)


def test_large_images_are_evened_as_small_ones():
    fine = noise(2, 0)
    large = cv2.resize(fine, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_LINEAR)
    grid = Grid(4 * SIDE, 4 * SIDE, 0.25, 0.25)
    found = evened(RegistrationImage(large, np.ones(grid.shape, dtype=bool), grid)).pixels
    smaller = cv2.resize(found, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    assert np.abs(smaller - evened(image(fine)).pixels).mean() < 0.1


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_flat_images_stay_flat(value):
    assert np.abs(evened(image(np.full(GRID.shape, value))).pixels).max() < 1e-5


def test_where_slow_changes_differ_fine_ones_tell_the_place():
    fine, slow = noise(3, 0), 3 * noise(40, 1)
    fixed, moving = image(fine + slow), image(np.exp(-fine / 2) - slow + 6 * noise(30, 2) + 0.5 * noise(3, 3))
    config = RegisterConfig(search_side=160, angles=40)
    view = raw_view(fixed, moving)
    assert (view.name, view.metric) == ("raw", "mi")
    starts = Starts([view], config).found()
    assert off(starts[0]) < 4
    as_scanned = Starts([View("raw", "mi", fixed, moving)], config).found()
    assert margin(starts) > 5 * margin(as_scanned)


def test_where_fine_ones_hardly_tell_the_place_slow_ones_have_a_say():
    fine, slow = noise(2, 3), 3 * noise(25, 4)
    view = raw_view(image(fine + slow), image(-fine + slow + 6 * noise(2, 5)))
    config = RegisterConfig(search_side=160, angles=40)
    best, other, *_ = Starts([view], config).found()
    assert off(best) < 4
    assert {*best.likelihood} == {"raw", "scanned"}
    assert {*best.held_out} == {"raw"}  # no verdict rests on it
    assert best.likelihood["raw"] < other.likelihood["raw"] + 3  # which would be luck
    assert best.total > other.total + 10
