"""Two crops of one picture are laid on each other to a fraction of a pixel; what cannot be registered is None."""

import cv2
import numpy as np
import pytest
from skimage.data import immunohistochemistry

from comir_batch.registration.quick import quick_rigid
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.known_rigid import LEVELS, corner_error, rigid

SIDE = 256


@pytest.fixture(scope="module")
def picture():
    return haematoxylin_dab_channels(immunohistochemistry())[0].astype(np.float32)


def crops(picture, truth, side=SIDE, noise=0.5, seed=0):
    """Cut a crop from the picture's middle and its partner under `truth`, each with its own noise."""
    rng = np.random.default_rng(seed)
    to_slide = np.array([[1, 0, (512 - side) / 2], [0, 1, (512 - side) / 2]])
    back = to_slide @ np.vstack([cv2.invertAffineTransform(truth), [0, 0, 1]])
    images = []
    for matrix in (to_slide, back):
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(picture, matrix, (side, side), flags=flags, borderValue=-1000)
        images.append((crop + rng.normal(0, noise * picture.std(), crop.shape).astype(np.float32), crop > -500))
    (fixed, fixed_mask), (moving, moving_mask) = images
    return fixed, moving, fixed_mask, moving_mask


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("seed", range(3))
def test_known_transforms_are_found_within_a_quarter_of_a_pixel_in_noise(picture, level, seed):
    truth = LEVELS[level].draw(np.random.default_rng(seed), SIDE)
    found = quick_rigid(*crops(picture, truth))
    assert corner_error(found, truth, SIDE) < 0.25


def test_small_crops_too(picture):
    truth = rigid(-13.0, (9.0, -6.0), 128)
    assert corner_error(quick_rigid(*crops(picture, truth, side=128)), truth, 128) < 0.5


def test_scale_and_offset_do_not_matter(picture):
    truth = rigid(7.0, (5.0, 3.0), SIDE)
    fixed, moving, *masks = crops(picture, truth)
    assert corner_error(quick_rigid(-2 + 1e-3 * fixed, 500 * moving, *masks), truth, SIDE) < 0.25


def test_larger_turns_are_searched_where_asked_for(picture):
    truth = rigid(117.0, (3.0, -8.0), SIDE)
    pair = crops(picture, truth)
    assert corner_error(quick_rigid(*pair, max_angle_deg=180.0), truth, SIDE) < 0.25
    assert corner_error(quick_rigid(*pair), truth, SIDE) > 20


def test_what_lies_outside_the_masks_is_not_seen(picture):
    truth = rigid(12.0, (-10.0, 15.0), SIDE)
    fixed, moving, fixed_mask, moving_mask = crops(picture, truth)
    fixed_mask, moving_mask = fixed_mask.copy(), moving_mask.copy()
    fixed_mask[:, :60] = moving_mask[-50:] = False
    fixed[~fixed_mask], moving[~moving_mask] = 3000, -3000
    assert corner_error(quick_rigid(fixed, moving, fixed_mask, moving_mask), truth, SIDE) < 0.25


def test_blank_images_and_images_without_a_mask_have_no_transform(picture):
    fixed, moving, fixed_mask, moving_mask = crops(picture, rigid(0.0, (0.0, 0.0), SIDE))
    assert quick_rigid(fixed, np.full_like(moving, 7), fixed_mask, moving_mask) is None
    assert quick_rigid(fixed, moving, fixed_mask, np.zeros_like(moving_mask)) is None
    dot = np.zeros_like(moving_mask)
    dot[100:102, 80:82] = True
    assert quick_rigid(fixed, moving, fixed_mask, dot) is None


def test_it_repeats(picture):
    pair = crops(picture, rigid(5.0, (1.0, 2.0), SIDE))
    assert np.array_equal(quick_rigid(*pair), quick_rigid(*pair))


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_both_images_share_is_not_enough(seed):
    noise = np.random.default_rng(seed).normal(0, 1, (512, 512)).astype(np.float32)
    fine = noise - cv2.GaussianBlur(noise, (0, 0), 1.0)
    truth = LEVELS[1].draw(np.random.default_rng(seed), 128)
    found = quick_rigid(*crops(fine, truth, side=128))
    assert found is None or corner_error(found, truth, 128) > 0.02 * 128
