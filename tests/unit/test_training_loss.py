import numpy as np
import pytest
import torch

from comir_batch.training.critics import CRITICS, SHORTEST
from comir_batch.training.loss import activation_decay, info_nce
from comir_batch.training.symmetry import turn

CRITIC_NAMES = sorted(CRITICS)


def literal_cosine(x, y):
    """Pixel by pixel, over the channels."""
    cosines = []
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            u, v = x[:, row, column], y[:, row, column]
            cosines.append(u @ v / np.sqrt((u @ u + SHORTEST**2) * (v @ v + SHORTEST**2)))
    return np.mean(cosines)


LITERAL = {
    "mse": lambda x, y: -np.mean((x - y) ** 2),
    "cosine": literal_cosine,
    "l1": lambda x, y: -np.mean(np.abs(x - y)),
}


def literal(first, second, temperature, critic="mse", *, decoupled=False):
    """The formula, term by term."""
    crops = np.concatenate([first.numpy(), second.numpy()])
    total, count = 0.0, len(first)
    scores = [[LITERAL[critic](x, y) / temperature for y in crops] for x in crops]
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        left_out = (i, partner) if decoupled else (i,)
        others = [np.exp(scores[i][j]) for j in range(2 * count) if j not in left_out]
        total += -scores[i][partner] + np.log(sum(others))
    return total / (2 * count)


def pair(count, channels, height, width, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, channels, height, width, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize(("count", "channels", "temperature"), [(2, 1, 0.5), (5, 2, 0.1), (7, 3, 0.5)])
def test_equals_the_literal_double_loop(count, channels, temperature, critic, decoupled):
    first, second = pair(count, channels, 6, 5, seed=count)
    expected = literal(first, second, temperature, critic, decoupled=decoupled)
    found = info_nce(first, second, temperature, critic, decoupled=decoupled)
    assert float(found) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_one_place_has_no_loss_and_no_decoupled_one():
    first, second = pair(1, 1, 4, 4)
    assert float(info_nce(first, second, 0.5)) == 0
    with pytest.raises(ValueError, match="at least two places"):
        info_nce(first, second, 0.5, decoupled=True)


def test_the_cosine_is_that_of_vectors_that_are_not_tiny():
    x, y = pair(4, 3, 5, 5)
    x, y = x.sign() + x, y.sign() + y
    exact = torch.nn.functional.cosine_similarity(x, y, dim=1).mean(dim=(1, 2))
    assert torch.allclose(CRITICS["cosine"](torch.cat([x, y])).diagonal(4), exact, atol=1e-8)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
def test_float32_keeps_its_digits(critic):
    crops = torch.cat(tuple(pair(4, 2, 64, 64))) + (0 if critic == "cosine" else 1000)
    crops = crops.float().double()
    assert torch.allclose(CRITICS[critic](crops.float()).double(), CRITICS[critic](crops), atol=2e-4)


def test_l1_of_large_crops_is_summed_over_all_of_them():
    crops = torch.cat(tuple(pair(3, 2, 40, 33)))
    expected = -(crops[:, None] - crops).abs().mean(dim=(2, 3, 4))
    assert torch.allclose(CRITICS["l1"](crops), expected, rtol=1e-12)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
@pytest.mark.parametrize("decoupled", [False, True])
def test_gradient_is_that_of_the_formula(critic, decoupled):
    inputs = tuple(crops.clone().requires_grad_() for crops in pair(3, 2, 3, 3, seed=1))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5, critic, decoupled=decoupled), inputs)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("degenerate", ["zeros", "all equal", "partners equal", "huge", "tiny"])
def test_loss_and_gradients_are_finite_where_crops_degenerate(critic, decoupled, degenerate):
    first, second = (crops.float() for crops in pair(3, 2, 4, 4))
    one = first[:1].expand_as(first)
    first, second = {
        "zeros": (0 * first, 0 * first),
        "all equal": (one, one),
        "partners equal": (first, first),
        "huge": (1e6 * first, 1e6 * second),
        "tiny": (1e-20 * first, 1e-20 * second),
    }[degenerate]
    inputs = [first.clone().requires_grad_(), second.clone().requires_grad_()]
    loss = info_nce(*inputs, 0.1, critic, decoupled=decoupled)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(crops.grad).all() for crops in inputs)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
@pytest.mark.parametrize("k", range(1, 8))
def test_turning_and_mirroring_all_crops_alike_changes_nothing(critic, k):
    first, second = pair(4, 3, 6, 6)
    upright = float(info_nce(first, second, 0.2, critic))
    turned = [torch.stack([turn(crop, k) for crop in crops]) for crops in (first, second)]
    assert float(info_nce(*turned, 0.2, critic)) == pytest.approx(upright, rel=1e-12)
    assert float(info_nce(turned[0], second, 0.2, critic)) != pytest.approx(upright, rel=1e-3)


@pytest.mark.parametrize("critic", CRITIC_NAMES)
def test_is_low_only_where_partners_agree_and_differ_from_others(critic):
    torch.manual_seed(2)
    crops = 3 * torch.randn(6, 2, 8, 8)
    agreeing = info_nce(crops, crops + 0.01 * torch.randn_like(crops), 0.1, critic)
    assert agreeing < 0.02
    assert info_nce(crops, crops.roll(1, 0), 0.1, critic) > 8
    assert info_nce(torch.zeros_like(crops), torch.zeros_like(crops), 0.1, critic) == pytest.approx(np.log(11))


def test_the_decoupled_loss_still_learns_where_the_other_has_nothing_left_to_learn():
    first = 5 * pair(2, 1, 8, 8)[0]
    gradients = []
    for decoupled in (False, True):
        crops = (first + 0.1).requires_grad_()
        info_nce(crops, first, 0.1, decoupled=decoupled).backward()
        gradients.append(float(crops.grad.norm()))
    assert gradients[0] < 1e-6
    assert gradients[1] > 0.1


def test_activation_decay_is_the_mean_power():
    first, second = torch.tensor([1.0, -3.0]), torch.tensor([0.0, 2.0])
    assert float(activation_decay(first, second, 1)) == 1.5
    assert float(activation_decay(first, second, 2)) == 3.5
