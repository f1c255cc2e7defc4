"""Blocks of one modality are found on the other, and those that match nothing are not."""

import cv2
import numpy as np
import pytest

from comir_batch.registration.blocks import count_blocks, offsets

SIDE, REACH = 48, 16
SHAPE = (10 * SIDE, 8 * SIDE)
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def texture(seed):
    noise = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return blurred / blurred.std()


def moved(pixels, x, y):
    return cv2.warpAffine(pixels, np.float32([[1, 0, x], [0, 1, y]]), SHAPE[::-1], borderMode=cv2.BORDER_REFLECT)


def seen(pixels, metric):
    """What the other modality shows: the same with noise, for mutual information with bright and dark alike."""
    noisy = pixels + 0.3 * texture(9)
    return np.abs(noisy) if metric == "mi" else noisy


@pytest.mark.parametrize("metric", ["ncc", "mi"])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (3.0, -5.0), (-11.4, 7.7)])
def test_a_shift_is_measured_to_a_fraction_of_a_pixel(metric, x, y):
    found = offsets((texture(1), EVERYWHERE), (seen(moved(texture(1), x, y), metric), EVERYWHERE), metric, SIDE, REACH)
    assert found.shape == (10, 8, 2)
    inner = found[1:-1, 1:-1]  # the outer ones lose what was moved out of the image
    clear = np.isfinite(inner[..., 0])
    assert clear.mean() > 0.9
    assert np.abs(inner[clear] - (x, y)).max() < 0.5


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_what_belongs_elsewhere_is_seldom_found(metric):
    found = offsets((texture(1), EVERYWHERE), (seen(texture(2), metric), EVERYWHERE), metric, SIDE, REACH)
    assert np.isfinite(found[..., 0]).mean() < 0.04


def test_blocks_with_enough_tissue_are_counted():
    mask = EVERYWHERE.copy()
    mask[: 3 * SIDE + SIDE // 4] = False
    mask[-SIDE:, : SIDE // 2] = False  # half of the last row's first block
    mask[-SIDE:, SIDE : 2 * SIDE - 20] = False  # more than half of its second
    assert count_blocks(mask, SIDE) == 7 * 8 - 1


def test_a_shift_beyond_the_reach_is_not_found():
    far = moved(texture(1), 2 * REACH, 0)
    found = offsets((texture(1), EVERYWHERE), (seen(far, "ncc"), EVERYWHERE), "ncc", SIDE, REACH)
    assert np.isfinite(found[..., 0]).mean() < 0.1


def test_only_tissue_counts():
    mask = EVERYWHERE.copy()
    mask[: 3 * SIDE + SIDE // 4] = False  # a quarter of the fourth row, too
    fixed, moving = (texture(1), mask), (seen(texture(1), "ncc"), EVERYWHERE)
    known = np.isfinite(offsets(fixed, moving, "ncc", SIDE, REACH)[..., 0])
    assert not known[:3].any()
    assert known[3:].mean() > 0.9
    assert np.isnan(offsets(fixed, (moving[0], ~EVERYWHERE), "ncc", SIDE, REACH)).all()


def test_flat_blocks_have_no_place():
    flat = np.zeros(SHAPE, np.float32)
    for metric in ("ncc", "mi"):
        assert np.isnan(offsets((flat, EVERYWHERE), (texture(1), EVERYWHERE), metric, SIDE, REACH)).all()
        assert np.isnan(offsets((texture(1), EVERYWHERE), (flat, EVERYWHERE), metric, SIDE, REACH)).all()
