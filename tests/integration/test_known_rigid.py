"""Fields are truly resampled under their transform, lie in their part, and say how often representations register."""

import math
import shutil

import cv2
import ihc_pairs
import numpy as np
import pytest

from comir_batch.bench.conditions import conditions, draw_sample
from comir_batch.bench.sample import Readers
from comir_batch.core.errors import SlideError
from comir_batch.core.transform import Affine, Composite
from comir_batch.training.crops import CropReader, PairReader
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


TRUE = [condition for condition in conditions(SIDE + 1) if condition.kind != "wrong"]
WRONG = {condition.name: condition for condition in conditions(SIDE) if condition.kind == "wrong"}


def drawn(reader, condition, number, order=1):
    return draw_sample([Readers(reader, reader, "colon")], condition, number, (0, order))


@pytest.mark.parametrize("condition", TRUE, ids=lambda condition: condition.name)
def test_the_truth_of_every_condition_holds_for_the_pixels(reader, condition):
    sample = drawn(reader, condition, 5)
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
    first, again, other = (drawn(reader, condition, number, 2) for number in (3, 3, 4))
    assert np.array_equal(first.inputs[1], again.inputs[1])
    assert not np.array_equal(first.inputs[1], other.inputs[1])


def test_what_was_measured_stays_what_it_was():
    """Fields are drawn by the condition's number in the list, so nothing may come before what is there."""
    names = [condition.name for condition in conditions(SIDE + 1)]
    assert names[:9] == [
        "level-1", "level-2", "level-3", "level-4", "any-angle", "mirrored", "half-overlap", "small", "bent",
    ]  # fmt: skip
    assert names[9:] == ["scaled", "bent-5", "bent-10", "bent-20", "neighbour", "other-pair", "blank", "background"]


def test_scaled_fields_are_scaled_and_bent_ones_bent_as_far_as_told_without_folds(reader):
    known = {condition.name: condition for condition in conditions(SIDE)}
    scales = [abs(np.linalg.det(drawn(reader, known["scaled"], n).truth.parts[0].matrix)) ** 0.5 for n in range(8)]
    assert 0.9 <= min(scales) < 1 < max(scales) <= 1.1
    bent = drawn(reader, known["bent-20"], 0)
    spline = bent.truth.parts[0]
    y, x = np.indices(bent.grid.shape)
    points = bent.grid.to_um(np.stack([x.ravel(), y.ravel()], axis=1))
    largest = np.linalg.norm(spline.displacement(points), axis=1).max() / ihc_pairs.MPP
    assert 5 < largest < 25
    assert (bent.truth.jacobian_determinant(points, ihc_pairs.MPP) > 0).all()


@pytest.fixture
def poses(monkeypatch):
    """Where the crops that a test reads lie."""
    seen, read = [], CropReader.read

    def watched(self, pose, side):
        seen.append(pose)
        return read(self, pose, side)

    monkeypatch.setattr(CropReader, "read", watched)
    return seen


def corners(pose):
    ends = (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5) * SIDE * ihc_pairs.MPP
    return (ends @ pose.linear.T + [pose.x, pose.y]).astype(np.float32)


@pytest.mark.parametrize("number", range(4))
def test_a_neighbour_does_not_overlap_but_is_near(reader, poses, number):
    sample = drawn(reader, WRONG["neighbour"], number)
    fixed, moving = poses[:2]
    area, _ = cv2.intersectConvexConvex(corners(fixed), corners(moving))
    assert area < 1e-3
    assert math.dist(fixed[:2], moving[:2]) < 2 * SIDE * ihc_pairs.MPP
    assert sample.truth is None
    assert sample.error_px(Composite((Affine.identity(),))) is None
    assert sample.unbent_px == 0


def test_blank_fields_have_nothing_but_noise_or_background(reader, twins, tmp_path):
    with pytest.raises(SlideError, match="no background"):  # haematoxylin is everywhere
        drawn(reader, WRONG["background"], 0)
    other = PairReader(Part(ihc_pairs.pair(tmp_path)), twins[1], ihc_pairs.MPP)
    flat, empty = (drawn(other, WRONG[name], 0) for name in ("blank", "background"))
    for sample in (flat, empty):
        assert sample.truth is None
        assert sample.grey[1].std() < 0.25 * sample.grey[0].std()
        assert sample.inputs[1].std() > 0
        assert sample.masks[1].mean() >= 0.85
    assert abs(np.corrcoef(flat.grey[1][:, :-1].ravel(), flat.grey[1][:, 1:].ravel())[0, 1]) < 0.1


def test_crops_of_another_pair_need_another_pair(reader, twins, poses):
    with pytest.raises(SlideError, match="only one pair"):
        drawn(reader, WRONG["other-pair"], 0)
    pair, modalities = twins
    middle = 256 * ihc_pairs.MPP
    halves = [PairReader(Part(pair, box), modalities, ihc_pairs.MPP) for box in (Box(x1=middle), Box(x0=middle))]
    readers = [Readers(half, half, name) for half, name in zip(halves, ("left", "right"), strict=True)]
    poses.clear()
    assert draw_sample(readers, WRONG["other-pair"], 0, (0, 1)).truth is None
    fixed, moving = poses[:2]
    assert (fixed.x < middle) != (moving.x < middle)
