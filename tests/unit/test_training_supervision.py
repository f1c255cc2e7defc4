import numpy as np
import pytest
import torch

from comir_batch.core.card import Architecture
from comir_batch.representation.network import DenseUNet
from comir_batch.training.loss import info_nce
from comir_batch.training.supervision import Supervision, bottleneck_loss, wanted
from comir_batch.training.symmetry import draw, turn, turn_back, turn_each, turn_each_back

SMALL = Architecture(in_channels=1, latent_channels=2, init_filters=4, down=(1, 1), bottleneck=2, up=(1, 1), growth=4)
CRITICS = ("mse", "cosine", "l1")
SYMMETRIES = ("c4", "d4")


@pytest.mark.parametrize(
    ("approach", "outputs", "bottleneck"),
    [
        ("none", [True] * 5, [False] * 5),
        ("alternating", [True, False, True, False, True], [False, True, False, True, False]),
        ("summed", [True] * 5, [True] * 5),
        ("pretraining", [False, False, True, True, True], [True, True, False, False, False]),
    ],
)
def test_each_approach_takes_its_losses(approach, outputs, bottleneck):
    plan = [wanted(Supervision(approach), step, 5) for step in range(5)]
    assert [step.outputs for step in plan] == outputs
    assert [step.bottleneck for step in plan] == bottleneck
    assert wanted(Supervision(approach), 0, 1).outputs


def literal(x, y, critic):
    x, y = x.ravel(), y.ravel()
    return {
        "mse": -np.mean((x - y) ** 2),
        "cosine": x @ y / np.linalg.norm(x) / np.linalg.norm(y),
        "l1": -np.mean(np.abs(x - y)),
    }[critic]


@pytest.mark.parametrize("critic", CRITICS)
def test_the_bottleneck_loss_is_the_formula_on_whole_vectors(critic):
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 5, 2, 3, dtype=torch.float64)
    features = [*first.numpy(), *second.numpy()]
    losses = []
    for i, x in enumerate(features):
        scores = [literal(x, y, critic) / 0.3 for y in features]
        negatives = np.exp(np.delete(scores, i)).sum()
        losses.append(np.log(negatives) - scores[(i + 4) % 8])
    assert float(bottleneck_loss(first, second, 0.3, critic)) == pytest.approx(np.mean(losses), rel=1e-8)


def equivariant(seed):
    """A network that commutes with turns and mirrors: its filters look alike from every side; pooling does anyway."""
    torch.manual_seed(seed)
    network = DenseUNet(SMALL).double().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            filters = module.weight.data
            module.weight.data = torch.stack([turn(filters, k) for k in range(8)]).mean(dim=0)
    return network


def seen(network, crops, turns):
    """Output and bottleneck of turned crops, turned back."""
    return [turn_each_back(images, turns) for images in network.with_bottleneck(turn_each(crops, turns))]


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_turns_that_are_undone_leave_both_losses_of_an_equivariant_network(symmetry, critic):
    networks, rng = (equivariant(0), equivariant(1)), np.random.default_rng(0)
    batch = torch.rand(2, 12, 1, 16, 16, dtype=torch.float64)
    turns = [draw(symmetry, 12, rng) for _ in networks]
    assert any(turns[0] != turns[1])
    with torch.no_grad():
        turned = [seen(network, crops, k) for network, crops, k in zip(networks, batch, turns, strict=True)]
        plain = [network.with_bottleneck(crops) for network, crops in zip(networks, batch, strict=True)]
    for of, loss in ((0, info_nce), (1, bottleneck_loss)):
        expected = float(loss(plain[0][of], plain[1][of], 0.01, critic))
        assert float(loss(turned[0][of], turned[1][of], 0.01, critic)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("of", [0, 1])
def test_another_network_is_not_equivariant(of):
    torch.manual_seed(0)
    network = DenseUNet(SMALL).double().eval()
    crops = torch.rand(8, 1, 16, 16, dtype=torch.float64)
    turns = draw("d4", 8, np.random.default_rng(0))
    with torch.no_grad():
        plain, turned = network.with_bottleneck(crops)[of], seen(network, crops, turns)[of]
    assert (plain - turned).std() > 0.1 * plain.std()


def test_draws_cover_the_group_and_nothing_else():
    rng = np.random.default_rng(0)
    assert set(draw("c4", 100, rng)) == set(range(4))
    assert set(draw("d4", 200, rng)) == set(range(8))
    assert not draw("none", 50, rng).any()
    assert np.array_equal(draw("d4", 9, np.random.default_rng(3)), draw("d4", 9, np.random.default_rng(3)))


def test_turns_are_undone():
    image = torch.arange(2 * 3 * 3).reshape(2, 3, 3)
    turned = [turn(image, k) for k in range(8)]
    assert all(torch.equal(turn_back(t, k), image) for k, t in enumerate(turned))
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    assert torch.equal(turned[0], image)
