"""How a model is measured: on representations that are known to turn or not, and on places that are drawn fairly."""

from __future__ import annotations

from dataclasses import replace

import ihc_pairs
import numpy as np
import pytest

from comir_batch.core.errors import ModelError, SlideError
from comir_batch.training.crops import Pose
from comir_batch.training.evaluate import Matching, _shifts, evaluate, match, turned_back, turning, unit
from comir_batch.training.sampling import Network, Sampler
from comir_batch.training.split import Box, Part

ANGLES = (0, 45, 90, 180, 300)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return ihc_pairs.pair(tmp_path_factory.mktemp("ihc"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ihc_pairs.tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def sampler(model, pair):
    return Sampler(model, [Part(pair)], "cpu")


@pytest.fixture(scope="module")
def places(sampler):
    return sampler.draw(8, np.random.default_rng(3))[1]


class Made:
    """Stands for a trained network: a known function of the image."""

    stride = 8

    def __init__(self, card, function):
        self.card, self.run = card, function


def made(sampler, function, *, moving=False):
    return Network(Made(sampler.modalities[int(moving)], function), moving=moving)


def the_image(image):
    return image


def its_slope(image):
    return np.gradient(image, axis=2).astype(np.float32)


@pytest.mark.parametrize("mirrored", [False, True])
def test_what_keeps_the_image_turns_with_it(sampler, places, mirrored):
    found = turning(made(sampler, the_image), places[:3], 128, ANGLES, mirrored=mirrored)
    assert found.shape == (5, 3)
    assert found.min() > 0.95


def test_what_looks_one_way_does_not_turn(sampler, places):
    upright, _, quarter, half, _ = turning(made(sampler, its_slope), places[:3], 128, ANGLES, mirrored=False)
    assert upright == pytest.approx([1, 1, 1])
    assert np.abs(quarter).max() < 0.5
    assert half.max() < -0.9
    mirror_image = turning(made(sampler, its_slope), places[:3], 128, [0], mirrored=True)
    assert mirror_image.max() < -0.9


def test_partners_find_each_other_where_both_networks_make_the_same(sampler, places):
    networks = made(sampler, the_image), replace(made(sampler, the_image), moving=False)
    found = match(networks, places, 128)
    assert found.retrieved == 1
    assert found.auc == 1
    assert found.true_pairs > 0.95
    assert found.wrong_pairs < 0.3
    assert len(found.wrong) == 8 * 7


def test_a_matching_counts_both_ways_and_halves_ties():
    found = Matching(np.array([[0.9, 0.5], [0.95, 0.6]]))
    assert found.retrieved == 0.5
    assert found.auc == pytest.approx(0.5)
    assert Matching(np.zeros((3, 3))).auc == 0.5


def test_a_crop_that_is_turned_back_is_the_upright_one(sampler, places):
    place = places[0]
    reader = sampler.networks[0].reader(place)
    upright, pose = reader.read(place.upright, 128), Pose(place.pose.x, place.pose.y, 1.0, mirrored=True)
    back = turned_back(reader.read(pose, 128), pose)
    middle = np.s_[0, 40:88, 40:88]
    assert np.corrcoef(upright[middle].ravel(), back[middle].ravel())[0, 1] > 0.98


def test_nothing_that_varies_has_no_correlation():
    assert (unit(np.full(9, 3.7)) == 0).all()
    assert (unit(np.zeros(9)) == 0).all()
    assert unit(np.arange(9.0)) @ unit(3 + 2 * np.arange(9.0)) == pytest.approx(1)


@pytest.mark.parametrize(("shift", "expected"), [((0, 0), 0), ((3, -4), 5)])
def test_the_shift_of_tiles_is_found(shift, expected):
    rng = np.random.default_rng(0)
    image = rng.random((1, 256, 256), dtype=np.float32)
    found = _shifts(image, np.roll(image, shift, (1, 2)), np.ones((256, 256), bool))
    assert len(found) == 4
    assert found == pytest.approx([expected] * 4, abs=0.2)


def test_glass_has_no_tiles():
    image = np.random.default_rng(0).random((1, 256, 256), dtype=np.float32)
    assert _shifts(image, image, np.zeros((256, 256), bool)) == []


def test_a_model_has_all_figures_also_where_parts_are_small(model, pair):
    parts = [Part(pair, Box(y1=60.0)), Part(pair, Box(y0=200.0))]  # so small that crops are small
    found = evaluate(model, parts, seed=5)
    expected = {"correlation", "retrieved", "true_pairs", "wrong_pairs", "shift_um", "shift_um_p95"}
    names = ("haematoxylin", "dab")
    assert set(found) == expected | {f"{word}_{name}" for word in ("turned", "mirrored") for name in names}
    assert all(np.isfinite(value) for value in found.values())
    assert 0 <= found["shift_um"] <= found["shift_um_p95"]


def test_places_are_drawn_where_there_is_room(model, pair):
    wide, narrow, too_small = Box(x1=200.0), Box(x0=150.0), Box(y1=40.0)
    sampler = Sampler(model, [Part(pair, box) for box in (wide, narrow, too_small)], "cpu")
    side, places = sampler.draw(60, np.random.default_rng(1))
    assert side == 128
    boxes = [place.part.box for place in places]
    assert boxes.count(wide) > boxes.count(narrow) > 0
    assert too_small not in boxes
    assert all(place.pose.x < 200 for place in places if place.part.box == wide)


def test_small_parts_are_measured_with_smaller_crops_and_tiny_ones_not_at_all(model, pair):
    strip = Sampler(model, [Part(pair, Box(y1=70.0))], "cpu")
    assert strip.draw(2, np.random.default_rng(0))[0] == 64
    assert strip.draw(2, np.random.default_rng(0), window=True)[0] == 128
    with pytest.raises(SlideError, match=r"crops of 32 pixels need 23 µm, the part has 256 x 20 µm"):
        Sampler(model, [Part(pair, Box(y1=20.0))], "cpu").draw(2, np.random.default_rng(0))


def test_a_window_is_the_upright_crop(sampler, places):
    place = places[0]
    window = made(sampler, the_image).window(place, 64)
    assert window == pytest.approx(place.reader.fixed.read(place.upright, 64), abs=1e-5)


def test_tissue_of_a_crop_is_the_slides(pair, places):
    place = places[0]
    overview = pair.fixed.overview()
    seen = place.reader.fixed.tissue_at(place.upright, 64)
    x, y = overview.grid.to_pixels([[place.pose.x, place.pose.y]])[0].round().astype(int)
    assert seen[31:33, 31:33].mean() == pytest.approx(float(overview.tissue[y, x]), abs=0.5)
    assert 0 < seen.mean() <= 1


def test_slides_may_stand_in_either_order(tmp_path, model, pair):
    swapped = Sampler(model, [Part(ihc_pairs.pair(tmp_path, ("dab", "haematoxylin")))], "cpu")
    assert [network.modality for network in swapped.networks] == ["dab", "haematoxylin"]
    usual = Sampler(model, [Part(pair)], "cpu")
    first, second = (s.draw(1, np.random.default_rng(0))[1][0] for s in (swapped, usual))
    side = swapped.networks[0].represent(first, first.upright, 128)
    assert side == pytest.approx(usual.networks[1].represent(second, first.upright, 128))


def test_a_model_of_other_modalities_is_refused(tmp_path, pair):
    stranger = replace(pair, moving=replace(pair.moving, modality="he"))
    with pytest.raises(ModelError, match="tiny-0 knows haematoxylin and dab, not he"):
        Sampler(ihc_pairs.tiny_model(tmp_path), [Part(stranger)], "cpu")


@pytest.mark.parametrize(
    ("card", "network", "message"),
    [
        ({"mpp": 0.2}, {}, "was trained at 0.2 µm/px"),
        ({}, {"photometric": "brightfield"}, "takes brightfield images of haematoxylin, the slide is dark"),
    ],
)
def test_what_a_run_would_not_take_the_model_for_is_not_measured(model, pair, card, network, message):
    first, second = model.card.modalities
    changed = model.card.model_copy(update={"modalities": (first.model_copy(update=network), second), **card})
    with pytest.raises(ModelError, match=f"haematoxylin.png: .*{message}"):
        evaluate(replace(model, card=changed), [Part(pair)])
