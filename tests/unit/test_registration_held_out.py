"""Held-out tiles are fixed, spread, and tell right alignments from wrong ones."""

import cv2
import numpy as np
import pytest

from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.held_out import HeldOut, held_out_tiles
from comir_batch.registration.images import RegistrationImage, View

CONFIG = RegisterConfig(search_side=128)
GRID = Grid(700, 600, 1.0, 1.0)


def _mask():
    return cv2.circle(np.zeros(GRID.shape, np.uint8), (350, 300), 280, 1, -1).astype(bool)


def test_the_share_is_of_the_tissue():
    mask = _mask()
    tiles = held_out_tiles(mask, 0.2, 1)
    assert not (tiles & ~mask).any()
    assert tiles.sum() / mask.sum() == pytest.approx(0.2, abs=0.04)


def test_the_choice_depends_on_the_seed_only():
    mask = _mask()
    np.testing.assert_array_equal(held_out_tiles(mask, 0.2, 1), held_out_tiles(mask, 0.2, 1))
    assert (held_out_tiles(mask, 0.2, 1) != held_out_tiles(mask, 0.2, 2)).any()


def test_too_little_tissue_is_an_error_that_says_so():
    with pytest.raises(RegistrationError, match=r"fills 1 tiles of 48 x 48 .* too few"):
        held_out_tiles(np.ones((50, 50), dtype=bool), 0.2, 1)


def test_held_out_tiles_have_neighbours_that_are_fitted():
    tiles = held_out_tiles(np.ones(GRID.shape, dtype=bool), 0.2, 1)
    count, _, stats, _ = cv2.connectedComponentsWithStats(tiles.astype(np.uint8))
    assert count > 20
    assert stats[1:, cv2.CC_STAT_WIDTH].max() <= 48
    assert stats[1:, cv2.CC_STAT_HEIGHT].max() <= 48


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_the_truth_is_significant_and_wrong_alignments_are_not(metric):
    generator = np.random.default_rng(0)
    pixels = cv2.GaussianBlur(generator.normal(size=GRID.shape).astype(np.float32), (0, 0), 8)
    pixels /= pixels.std()
    motion = Motion(amplitude_um=5.0)
    (moved,), grid, truth = move(pixels[None], GRID, motion)
    moved_mask = move(_mask().astype(np.float32)[None], GRID, motion)[0][0] > 0.5
    moved = moved**2 if metric == "mi" else moved
    view = View("raw", metric, RegistrationImage(pixels, _mask(), GRID), RegistrationImage(moved, moved_mask, grid))
    judge = HeldOut(view, held_out_tiles(_mask(), 0.2, 1), CONFIG)
    aside = truth.then(Affine(np.eye(2), [120.0, 0.0]))
    assert judge.significance(truth) > 8
    assert abs(judge.significance(aside)) < 4
    assert np.isnan(judge.significance(truth.then(Affine(np.eye(2), [9000.0, 0.0]))))
    assert np.isnan(judge.score(Composite((Affine(np.eye(2), [9000.0, 0.0]),))))


def test_tiles_of_a_long_strip_do_not_vanish_at_the_search_s_level():
    generator = np.random.default_rng(0)
    grid = Grid(9000, 260, 1.0, 1.0)
    pixels = cv2.GaussianBlur(generator.normal(size=grid.shape).astype(np.float32), (0, 0), 12)
    image = RegistrationImage(pixels, np.ones(grid.shape, bool), grid)
    view = View("comir", "ncc", image, image)
    tiles = held_out_tiles(image.mask, 0.2, 1)
    assert HeldOut(view, tiles, CONFIG).significance(Composite()) > 4
