import cv2
import numpy as np
import pytest
import torch
from skimage.data import immunohistochemistry

from comir_batch.core.card import Architecture, Input, ModalityCard
from comir_batch.core.errors import SlideError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.representation.store import find_model
from comir_batch.representation.weights import load
from comir_batch.training.crops import CropReader, PairReader, Pose, TrainingPair, disturbed
from comir_batch.training.digest import sha256
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.train import TrainConfig, cut, train, turn, turn_back
from comir_batch.training.window import WHOLE, Box, Window

TINY = Architecture(in_channels=1, init_filters=4, down=(1, 1), bottleneck=1, up=(1, 1), growth=4)
MODALITIES = tuple(ModalityCard(modality=m, architecture=TINY) for m in ("haematoxylin", "dab"))
MPP = 0.5


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ihc")
    specs = []
    for name, channel in zip(("h", "d"), haematoxylin_dab_channels(immunohistochemistry()), strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), channel)
        specs.append(SlideSpec(folder / f"{name}.png", mpp=MPP))
    return TrainingPair(*specs, Box(x1=160.0))


def config(**changes):
    settings = {"steps": 3, "batch": 4, "crop": 32, "precision": "float32", "threads": 1} | changes
    texts = {"trained_on": "a picture", "held_out": "its right part", "licence": "MIT"}
    return TrainConfig(name="tiny", modalities=MODALITIES, mpp=MPP, **texts, **settings)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pair, tmp_path):
    cards = [train([pair], config(seed=seed), tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert cards[0].weights_sha256 == cards[1].weights_sha256 != cards[2].weights_sha256


def test_training_leaves_the_process_as_it_was(pair, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train([pair], config(steps=1), tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


def test_learns_and_the_model_loads(pair, tmp_path):
    losses = []
    slow = config(steps=120, batch=8, learning_rate=1e-2, disturbance=0.3)
    card = train([pair], slow, tmp_path, lambda step, loss: losses.append((step, loss)))
    assert [step for step, _ in losses] == list(range(1, 121))
    values = [loss for _, loss in losses]
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:5])
    assert card.slides == 1
    assert card.data_sha256["h.png"] == sha256(pair.fixed.path)
    assert card.training["steps"] == 120
    assert load(find_model(tmp_path), "dab", "cpu").latent_channels == 1


def test_turns_are_undone():
    image = torch.arange(2 * 3 * 3).reshape(2, 3, 3)
    turned = [turn(image, k) for k in range(8)]
    assert all(torch.equal(turn_back(t, k), image) for k, t in enumerate(turned))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8


def test_squares_are_cut_from_the_middle_in_the_same_order_for_both_modalities():
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(8), indexing="ij")
    image = (10 * rows + columns)[None, None]
    squares = cut(torch.cat([image, image + 100]), 3)
    assert squares.shape == (8, 1, 3, 3)
    assert [int(square[0, 0, 0]) for square in squares] == [1, 4, 31, 34, 101, 104, 131, 134]
    assert torch.equal(squares[3, 0], image[0, 0, 3:6, 4:7])
    assert torch.equal(cut(image[..., :7], 7), image[..., :7])


def test_a_window_shows_its_part_and_nothing_else(pair):
    with open_slide(pair.fixed) as slide, Window(open_slide(pair.fixed), Box(x0=100.0, y0=10.0, x1=130.0)) as window:
        level = window.info.levels[0]
        assert (level.width, level.height) == (60, 492)
        assert window.origin_um.tolist() == [100.0, 10.0]
        expected = slide.read(Region(205, 23, 215, 33))
        assert np.array_equal(window.read(Region(5, 3, 15, 13)), expected)
        with pytest.raises(ValueError, match="leaves the window"):
            window.read(Region(55, 0, 61, 5))


def test_an_empty_window_is_refused(pair):
    with pytest.raises(SlideError, match="has no pixels"):
        Window(open_slide(pair.fixed), Box(x0=300.0))


def test_an_upright_crop_is_the_slide_itself(pair):
    with Window(open_slide(pair.fixed), Box(x0=10.0)) as window:
        reader = CropReader(window, Input(), MPP)
        low, high = reader.ranges[0]
        crop = reader.read(Pose(10.0 + 0.5 * 35.5, 0.5 * 45.5), 32)
        region = window.read(Region(20, 30, 52, 62)).astype(np.float64)
        assert np.allclose(crop, np.clip((region - low) / (high - low), 0, 1), atol=1e-4)


@pytest.mark.parametrize(("pose", "expected"), [((0.5 * np.pi, False), 3), ((0.0, True), None), ((np.pi, True), 2)])
def test_a_turned_crop_is_the_upright_one_turned(pair, pose, expected):
    with Window(open_slide(pair.fixed), WHOLE) as window:
        reader = CropReader(window, Input(), MPP)
        upright = reader.read(Pose(60.25, 70.25), 32)
        turned = reader.read(Pose(60.25, 70.25, *pose), 32)
        truth = np.flip(upright, -1) if expected is None else np.rot90(upright, 1, (1, 2))
        truth = np.rot90(upright, expected, (1, 2)) if pose == (np.pi, False) else truth
        truth = np.flip(upright, -2) if pose == (np.pi, True) else truth
        assert np.allclose(turned, truth, atol=1e-3)


def test_crops_of_a_pair_lie_at_the_same_place_and_inside_at_every_angle(pair):
    with PairReader(TrainingPair(pair.fixed, pair.fixed, pair.box), MODALITIES, MPP) as reader:
        rng = np.random.default_rng(0)
        for _ in range(20):
            pose = reader.draw(rng, 64)
            radius = 32 * 0.5 * np.sqrt(2)
            assert radius - 1 <= pose.x <= 160 - radius
            first, second = reader.read(pose, 64)
            assert np.array_equal(first, second)
        with pytest.raises(SlideError, match="crops of 400 pixels need"):
            reader.draw(rng, 400)


def test_crops_of_a_coarser_pixel_size_average_pixels(pair):
    with Window(open_slide(pair.fixed), WHOLE) as window:
        fine, coarse = CropReader(window, Input(), MPP), CropReader(window, Input(), 2 * MPP)
        place = Pose(0.5 * 99.5, 0.5 * 99.5)
        averaged = fine.read(place, 64).reshape(1, 32, 2, 32, 2).mean(axis=(2, 4))
        assert np.abs(coarse.read(place, 32) - averaged).mean() < 0.005


def test_disturbance_changes_intensities_but_no_strength_does_not():
    crop = np.random.default_rng(0).random((1, 16, 16)).astype(np.float32)
    assert np.allclose(disturbed(crop, np.random.default_rng(1), 0.0), crop)
    changed = disturbed(crop, np.random.default_rng(1), 1.0)
    assert changed.dtype == np.float32
    assert 0 <= changed.min() < changed.max() <= 1
    assert not np.allclose(changed, crop)
    assert np.corrcoef(changed.ravel(), crop.ravel())[0, 1] > 0.8


def test_the_digest_of_a_folder_depends_on_names_and_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "c").mkdir(parents=True)
        (tmp_path / name / "c" / "0").write_bytes(b"x")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    (tmp_path / "b" / "c" / "0").rename(tmp_path / "b" / "c" / "1")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
