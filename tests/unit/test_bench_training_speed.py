import pytest
import torch

from comir_batch.bench.training_speed import compare
from comir_batch.training.critics import CRITICS
from comir_batch.training.loss import info_nce
from comir_batch.training.speed import Contest, contests, looped_info_nce, with_threads


@pytest.mark.parametrize("critic", sorted(CRITICS))
def test_what_the_loss_is_compared_with_is_the_same_loss(critic):
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 3, 5, 6, dtype=torch.float64)
    expected = float(looped_info_nce(first, second, 0.2, critic))
    assert float(info_nce(first, second, 0.2, critic)) == pytest.approx(expected, rel=1e-6)


def test_both_ways_run_in_turn_after_a_warm_up():
    calls = []

    def way(name):
        return lambda: calls.append((name, sum(range(100_000))))

    row = compare(Contest("work", way("ours"), way("other"), "note"), repeats=3)
    assert [name for name, _ in calls] == ["ours", "other", "ours", "other", "other", "ours", "ours", "other"]
    assert row.ratio == pytest.approx(row.other_s / row.ours_s)
    assert (row.work, row.note) == ("work", "note")


def test_every_contest_can_be_held():
    with with_threads(1):
        rows = [compare(contest, 1) for contest in contests(batch=2, side=16, image=64)]
    assert [row.work for row in rows] == [
        "loss, mse",
        "loss, cosine",
        "loss, l1",
        "training step, mse",
        "inference, tiles",
        "inference, one pass",
    ]
    assert "1 x 208 x 208" in rows[-1].note


def test_the_network_alone_gives_what_it_is_compared_with_in_size():
    contest = next(contest for contest in contests(batch=2, side=16, image=64) if contest.work == "inference, tiles")
    ours, (other,) = contest.ours(), contest.other()
    assert ours.shape == (1, 64, 64)
    assert other.shape == (1, 1, 208, 208)


def test_threads_are_left_as_they_were():
    before = torch.get_num_threads()
    with with_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
