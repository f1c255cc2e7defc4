"""The cost model: what it counts is what is done, and what makes work larger makes its cost larger."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from comir_batch.core.block import BlockPlan
from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.pipeline import cost
from comir_batch.representation.field import field
from comir_batch.representation.network import DenseUNet, preset
from comir_batch.representation.operations import multiplications, pixels_seen

SIDE = 64
PAIR = cost.PairSize(Grid(1024, 1024, 0.5, 0.5), 1024**2, represented=True, deformable=True)


def counted(network, image):
    """Return the multiplications of all convolutions, as they are called."""
    total = []

    def count(layer, _inputs, output):
        total.append(layer.weight.numel() * output.shape[-2] * output.shape[-1])

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(image)
    return sum(total)


@pytest.mark.parametrize("name", ["compact", "zurich", "paper"])
def test_multiplications_are_those_of_the_network(name):
    architecture = preset(name)
    called = counted(DenseUNet(architecture).eval(), torch.zeros(1, architecture.in_channels, SIDE, SIDE))
    assert multiplications(architecture) * SIDE**2 == pytest.approx(called)


def test_halos_and_whole_strides_count_among_the_pixels_that_a_network_sees():
    architecture = preset("compact")
    halo, stride = field(architecture)
    assert stride == 8
    one = (96 + 2 * halo) * (104 + 2 * halo)
    assert pixels_seen(architecture, BlockPlan(96, 100, 1024)) == one
    assert pixels_seen(architecture, BlockPlan(96, 100, 1024), tile=48) == 2 * (48 + 2 * halo) * (
        2 * (48 + 2 * halo) + 8 + 2 * halo
    )


@pytest.mark.parametrize(
    ("pair", "settings"),
    [
        (PAIR._replace(pixels=4 * PAIR.pixels), {}),
        (PAIR._replace(grid=Grid(4096, 4096, 0.5, 0.5)), {}),
        (PAIR, {"angles": 240}),
        (PAIR, {"scales": (0.9, 1.0, 1.1)}),
        (PAIR, {"iterations": 500}),
        (PAIR, {"samples": 4096}),
        (PAIR, {"second_metric": "raw"}),
    ],
)
def test_more_work_takes_longer_to_register(pair, settings):
    assert cost.register_s(pair, RegisterConfig(**settings)) > 1.02 * cost.register_s(PAIR, RegisterConfig())


def test_an_affine_fit_takes_less():
    assert cost.register_s(PAIR._replace(deformable=False), RegisterConfig()) < cost.register_s(PAIR, RegisterConfig())


def test_samples_are_counted_over_all_fits():
    config = RegisterConfig(iterations=100, samples=1000)
    pair = cost.PairSize(Grid(128, 128, 0.5, 0.5), 128**2, represented=True, deformable=False)
    # Two resolutions, three stages of 50 iterations: the full fit and the one back by correlation, the other view's by
    # mutual information, which takes four times the samples.
    assert cost.megasamples(pair, config) == pytest.approx(2 * 3 * 50 * 1000 * (1 + 1 + 4) / 1e6)


def test_what_a_users_parameter_file_leaves_out_is_what_elastix_takes():
    config = RegisterConfig(parameter_files=('(Transform "EulerTransform")\n(NumberOfSpatialSamples 100 200 300)\n',))
    checks = cost.megasamples(PAIR._replace(deformable=False), RegisterConfig()) * (1 + 4) / (1 + 1 + 4)
    assert cost.megasamples(PAIR, config) == pytest.approx(500 * 600 / 1e6 + checks)
