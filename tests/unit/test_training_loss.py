import numpy as np
import pytest
import torch

from comir_batch.training.loss import activation_decay, info_nce, similarities


def literal(first, second, temperature):
    """The formula, term by term."""
    crops = np.concatenate([first.numpy(), second.numpy()])
    total, count = 0.0, len(first)
    scores = [[-np.mean((x - y) ** 2) / temperature for y in crops] for x in crops]
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = [np.exp(scores[i][j]) for j in range(2 * count) if j != i]
        total += -scores[i][partner] + np.log(sum(others))
    return total / (2 * count)


@pytest.mark.parametrize(("count", "channels", "temperature"), [(1, 1, 0.5), (5, 1, 0.1), (7, 3, 0.5)])
def test_equals_the_literal_double_loop(count, channels, temperature):
    torch.manual_seed(count)
    first, second = torch.randn(2, count, channels, 6, 5, dtype=torch.float64)
    expected = literal(first, second, temperature)
    assert float(info_nce(first, second, temperature)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_float32_keeps_its_digits_where_crops_have_a_large_common_part():
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 1, 32, 32, dtype=torch.float64)
    exact = similarities(torch.cat([first, second]) + 1000.0)
    assert torch.allclose(similarities((torch.cat([first, second]) + 1000.0).float()).double(), exact, atol=2e-4)


def test_gradient_is_that_of_the_formula():
    torch.manual_seed(1)
    first, second = torch.randn(2, 3, 1, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5), (first.requires_grad_(), second.requires_grad_()))


def test_is_low_only_where_partners_agree_and_differ_from_others():
    torch.manual_seed(2)
    crops = 3 * torch.randn(6, 1, 8, 8)
    agreeing = info_nce(crops, crops + 0.01 * torch.randn_like(crops), 0.1)
    assert agreeing < 1e-3
    assert info_nce(crops, crops.roll(1, 0), 0.1) > 10
    assert info_nce(torch.zeros_like(crops), torch.zeros_like(crops), 0.1) == pytest.approx(np.log(11))


def test_activation_decay_is_the_mean_power():
    first, second = torch.tensor([1.0, -3.0]), torch.tensor([0.0, 2.0])
    assert float(activation_decay(first, second, 1)) == 1.5
    assert float(activation_decay(first, second, 2)) == 3.5
