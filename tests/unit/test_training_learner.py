"""One optimiser step after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from comir_batch.core.card import Architecture, ModalityCard
from comir_batch.core.errors import ConfigError, ModelError
from comir_batch.training import course
from comir_batch.training.batches import Batch
from comir_batch.training.checkpoint import Checkpoint
from comir_batch.training.config import checked
from comir_batch.training.history import History
from comir_batch.training.learner import Learner, cut, learning_rate, told_apart
from comir_batch.training.validate import Validation

TINY = Architecture(in_channels=1, init_filters=4, down=(1, 1), bottleneck=1, up=(1, 1), growth=4, dropout=0.1)
CARDS = tuple(ModalityCard(modality=m, architecture=TINY) for m in ("a", "b"))


def settings(**changes):
    return checked({"batch": 4, "crop": 32, "contrast": 16, "steps": 20, "precision": "float32"} | changes)


def batch(number):
    rng = np.random.default_rng(number)
    first = rng.random((4, 1, 32, 32), dtype=np.float32)
    return Batch(torch.from_numpy(first), torch.from_numpy(1 - first))


def losses(learner, numbers):
    return [learner.step(batch(number), number) for number in numbers]


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_what_goes_on_from_a_state_equals_what_never_stopped(optimiser):
    config = settings(optimiser=optimiser)
    whole = Learner(CARDS, config, "cpu")
    expected = losses(whole, range(6))
    first = Learner(CARDS, config, "cpu")
    losses(first, range(3))
    second = Learner(CARDS, config, "cpu")
    second.resume(first.state())
    assert losses(second, range(3, 6)) == expected[3:]
    after, wanted = second.state(), whole.state()
    assert all(tensor.is_contiguous() for tensor in (*wanted.values(), *whole.average.values()))
    assert after.keys() == wanted.keys()
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)


def test_another_seed_gives_another_start():
    first, second = (Learner(CARDS, settings(seed=seed), "cpu").average for seed in (1, 2))
    assert not torch.equal(first["0.stem.weight"], second["0.stem.weight"])


def test_the_average_follows_the_weights():
    learner, plain = (Learner(CARDS, settings(averaging=a), "cpu") for a in (0.9, 0.0))
    losses(learner, range(3))
    losses(plain, range(3))
    assert torch.equal(plain.average["0.stem.weight"], plain.state()["network.0.stem.weight"])
    assert not torch.equal(learner.average["0.stem.weight"], learner.state()["network.0.stem.weight"])
    assert learner.state()["network.0.stem.weight"].equal(plain.state()["network.0.stem.weight"])


@pytest.mark.parametrize("approach", ["alternating", "summed", "pretraining"])
@pytest.mark.parametrize("critic", ["mse", "cosine", "l1"])
def test_the_bottleneck_is_supervised_when_it_is_its_turn(approach, critic):
    learner = Learner(CARDS, settings(supervision={"approach": approach, "critic": critic}, steps=8), "cpu")
    moved = []
    for number in range(8):
        before = learner.state()
        learner.step(batch(number), number)
        after = learner.state()
        assert not torch.equal(before["network.0.stem.weight"], after["network.0.stem.weight"])
        moved.append(not torch.equal(before["network.0.head.weight"], after["network.0.head.weight"]))
    # The head lies behind the bottleneck, whose loss cannot move it.
    alone = {"alternating": [True, False] * 4, "summed": [True] * 8, "pretraining": [False] * 4 + [True] * 4}
    assert moved == alone[approach]


def test_a_loss_that_is_not_finite_is_a_clear_error():
    broken = Batch(torch.full((4, 1, 32, 32), torch.nan), torch.zeros(4, 1, 32, 32))
    with pytest.raises(ConfigError, match="loss is nan at step 3; lower learning_rate"):
        Learner(CARDS, settings(), "cpu").step(broken, 3)


def test_squares_are_cut_from_the_middle_in_the_same_order_for_both_modalities():
    rows, columns = torch.meshgrid(torch.arange(7), torch.arange(8), indexing="ij")
    image = (10 * rows + columns)[None, None]
    squares = cut(torch.cat([image, image + 100]), 3)
    assert squares.shape == (8, 1, 3, 3)
    assert [int(square[0, 0, 0]) for square in squares] == [1, 4, 31, 34, 101, 104, 131, 134]
    assert torch.equal(squares[3, 0], image[0, 0, 3:6, 4:7])
    assert torch.equal(cut(image[..., :7], 7), image[..., :7])


def test_coarse_squares_are_means_of_blocks_and_twice_as_wide():
    first = batch(0).fixed
    fine, coarse = told_apart(first, -first, settings(contrast=8, coarse=4))
    assert fine[0].shape == (64, 1, 8, 8)
    assert coarse[0].shape == (16, 1, 4, 4)
    assert torch.allclose(coarse[0][1, 0, 2, 3], first[0, 0, 8:12, 28:32].mean())
    assert torch.equal(coarse[1], -coarse[0])


def test_whole_crops_are_compared_whole_and_nothing_coarse_unless_asked_for():
    first = batch(0).fixed
    assert [pair[0].shape[2] for pair in told_apart(first, first, settings(contrast=0, coarse=4))] == [32, 8]
    assert [pair[0].shape[2] for pair in told_apart(first, first, settings(contrast=16, coarse=1))] == [16]


def test_the_learning_rate_rises_and_falls_or_stays():
    rates = [learning_rate(settings(steps=100), n) for n in range(100)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == rates[10] == pytest.approx(2e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-5
    assert {learning_rate(settings(schedule="constant"), n) for n in range(20)} == {2e-3}


def test_training_ends_when_the_second_half_brings_no_progress():
    history = History([0.0] * 10)
    for step, success in ((2, 0.5), (4, 0.9), (6, 0.9), (8, 0.8)):
        history.validations[step] = Validation((success,) * 4, 0.1 if step != 6 else 0.05)
    assert history.best == 6
    assert not history.is_over(10, 2)
    history.validations[10] = Validation((0.9,) * 4, 0.06)
    assert history.is_over(10, 2)
    assert not history.is_over(100, 2)
    assert History.from_json(history.to_json()) == history


IDENTITY = {
    "settings": {"steps": 6, "fixed": {"low": 1, "high": 99}},
    "slides": {"t0 fixed": "chunk-1"},
    "mpp": 0.5,
    "device": "cpu",
    "torch": "2",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"steps": 7}}, "steps was 6, is 7$"),
        ({"settings": {"steps": 6, "fixed": {"low": 5, "high": 99}}}, "began with: fixed.low was 1, is 5$"),
        # Settings are named first: of another pixel size slides are others, too.
        ({"settings": {"steps": 7}, "slides": {}, "mpp": 0.6, "modalities": ["c"]}, "steps was 6, is 7$"),
        ({"mpp": 0.6}, "mpp was 0.5, is 0.6"),
        ({"revision": 2}, "another version of comir-batch began this training .revision 1, now 2"),
        ({"device": "cuda"}, "device was 'cpu', is 'cuda'"),
        ({"slides": {"t0 fixed": "chunk-2"}}, r"\(t0 fixed\)\. Begin anew"),
        ({"slides": {"t0 fixed": "chunk-1", "t1 fixed": "chunk-3"}}, r"\(t1 fixed\)\. Begin anew"),
    ],
)
def test_a_training_goes_on_only_as_it_began(change, message):
    now = IDENTITY | {"revision": 1}  # which older checkpoints do not name
    course._require_same(IDENTITY, now)
    change = change | {"settings": IDENTITY["settings"] | change.get("settings", {})}
    with pytest.raises(ConfigError, match=message):
        course._require_same(IDENTITY, now | change)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, "there is no CUDA device here"),
        ({"region": (0.2, 0.2, 1, 1)}, "leaves out more than one rectangle"),
        ({"compile": True}, r"compile needs a C\+\+ compiler, and there is no nonesuch-g"),
        ({"mpp": 2.0}, "mpp was 0.0, is 2.0"),
    ],
)
def test_what_would_stop_a_training_is_told_before_anything_is_prepared(tmp_path, monkeypatch, changes, message):
    monkeypatch.setenv("CXX", "nonesuch-g++")
    monkeypatch.setattr("comir_batch.representation.device._sees_cuda", lambda: False)
    stopped = tmp_path / "checkpoint.safetensors"
    Checkpoint({}, {"identity": course._terms(settings())}).save(stopped)
    course.require_able(settings(), stopped)
    with pytest.raises((ConfigError, ModelError), match=message):
        course.require_able(settings(**changes), stopped)


def test_a_training_leaves_torch_as_it_was():
    cudnn = torch.backends.cudnn
    before = torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, torch.initial_seed()
    with course._repeatable(settings(threads=1)):
        torch.manual_seed(7)
        assert (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark) == (1, True, False)
    assert (torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, torch.initial_seed()) == before
