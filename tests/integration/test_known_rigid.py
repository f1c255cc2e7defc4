"""Fields are truly resampled under their transform, lie in their part, and say how often representations register."""

import math
import shutil

import cv2
import ihc_pairs
import numpy as np
import pytest

from comir_batch.bench.fields import conditions, draw_sample
from comir_batch.core.errors import SlideError
from comir_batch.training.crops import PairReader
from comir_batch.training.known_rigid import LEVELS, corner_error, draw_field, rigid, success
from comir_batch.training.split import Box, Part

SIDE = 128


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """The haematoxylin as both slides of a pair, so that a truth can be checked by the pixels."""
    folder = tmp_path_factory.mktemp("twins")
    path = ihc_pairs.manifest(folder)
    shutil.copy(folder / "haematoxylin.png", folder / "dab.png")
    model = ihc_pairs.tiny_model(folder / "model")
    serial = ihc_pairs.ExecutionConfig(executor="serial", device="cpu")
    prepared = ihc_pairs.prepare(path, folder / "data", ihc_pairs.MPP, serial, lambda _: None)
    return prepared.pairs[0], model.card.modalities


@pytest.fixture(scope="module")
def reader(twins):
    pair, modalities = twins
    return PairReader(Part(pair), modalities, ihc_pairs.MPP)


def laid_back(field):
    """Sample the moving crop where the truth maps the fixed crop's pixels."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = field.fixed.shape[:0:-1]
    back = cv2.warpAffine(field.moving[0], field.truth, size, flags=flags, borderValue=-10)
    valid = cv2.warpAffine(field.moving_valid.astype(np.float32), field.truth, size, flags=flags, borderValue=0)
    return back, cv2.erode((valid > 0.99).astype(np.uint8), np.ones((7, 7)), borderValue=0).astype(bool)


@pytest.mark.parametrize("level", range(4))
def test_the_moving_crop_shows_under_the_truth_what_the_fixed_crop_shows(reader, level):
    field = draw_field(reader, np.random.default_rng(level), level, SIDE)
    back, valid = laid_back(field)
    assert valid.mean() > 0.5
    assert np.corrcoef(back[valid], field.fixed[0][valid])[0, 1] > 0.98
    turn = abs(math.degrees(math.atan2(field.truth[1, 0], field.truth[0, 0])))
    middle = np.full(2, (SIDE - 1) / 2)
    shift = np.abs(field.truth[:, :2] @ middle + field.truth[:, 2] - middle)
    assert LEVELS[level].turn[0] <= turn < LEVELS[level].turn[1]
    assert (shift >= LEVELS[level].shift[0] * SIDE).all()
    assert (shift < LEVELS[level].shift[1] * SIDE).all()


def test_a_field_stays_in_its_part(twins):
    pair, modalities = twins
    reader = PairReader(Part(pair, Box(x1=80.0)), modalities, ihc_pairs.MPP)  # 160 pixels of 512
    rng = np.random.default_rng(0)
    fields = [draw_field(reader, rng, 3, SIDE) for _ in range(8)]
    assert all(field.fixed_valid.all() and field.moving_valid.mean() >= 0.85 for field in fields)
    assert not all(field.moving_valid.all() for field in fields)
    with pytest.raises(SlideError):
        draw_field(reader, rng, 0, 200)


def test_the_corner_error_is_the_mean_distance_of_the_corners():
    straight = rigid(0.0, (0.0, 0.0), SIDE)
    assert corner_error(straight, straight, SIDE) == 0
    assert corner_error(rigid(0.0, (3.0, 4.0), SIDE), straight, SIDE) == pytest.approx(5.0)
    half_turn = rigid(180.0, (0.0, 0.0), SIDE)
    assert corner_error(half_turn, straight, SIDE) == pytest.approx((SIDE - 1) * math.sqrt(2))


def test_representations_that_agree_register_always_and_those_of_other_places_never(reader):
    rng = np.random.default_rng(1)
    fields = [draw_field(reader, rng, level, SIDE) for level in (0, 1, 2, 3)]
    assert success((lambda crop: crop, lambda crop: 5 * crop - 1), fields) == 1.0
    elsewhere = iter(fields[1:] + fields[:1])
    assert success((lambda crop: crop, lambda _: next(elsewhere).moving), fields) == 0.0
    assert success((lambda crop: crop, np.zeros_like), fields) == 0.0


@pytest.mark.parametrize("condition", conditions(SIDE + 1), ids=lambda condition: condition.name)
def test_the_truth_of_every_condition_holds_for_the_pixels(reader, condition):
    sample = draw_sample([(reader, reader)], condition, 5, (0, 1))
    y, x = np.indices(sample.grid.shape)
    points = sample.grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1))
    places = sample.grid.to_pixels(sample.truth.map(points)).astype(np.float32).reshape(*sample.grid.shape, 2)
    back = cv2.remap(sample.grey[1], places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=-10)
    seen = cv2.remap(sample.masks[1].astype(np.float32), places, None, cv2.INTER_LINEAR, borderValue=0)
    valid = cv2.erode((seen > 0.99).astype(np.uint8), np.ones((9, 9)), borderValue=0).astype(bool)
    assert valid.mean() > 0.3
    assert np.corrcoef(back[valid], sample.grey[0][valid])[0, 1] > 0.97
    assert len(sample.points) >= 4


def test_a_field_is_the_same_whenever_it_is_drawn(reader):
    condition = conditions(SIDE)[2]
    first, again, other = (draw_sample([(reader, reader)], condition, number, (0, 2)) for number in (3, 3, 4))
    assert np.array_equal(first.inputs[1], again.inputs[1])
    assert not np.array_equal(first.inputs[1], other.inputs[1])
