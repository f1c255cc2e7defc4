import pytest
import torch

from comir_batch.core.card import Architecture
from comir_batch.representation.field import field
from comir_batch.representation.network import PRESETS, DenseUNet, preset

SMALL = Architecture(in_channels=1, init_filters=8, down=(1, 2), bottleneck=2, up=(2, 1), growth=6)


def parameters(architecture):
    return sum(parameter.numel() for parameter in DenseUNet(architecture).parameters())


@pytest.mark.parametrize(
    ("name", "channels", "count"),
    [
        ("zurich", 3, 165_064),
        ("zurich", 1, 164_776),
        ("compact", 1, 164_600),
        ("paper", 1, 1_053_244),
        ("paper", 3, 1_053_820),
    ],
)
def test_parameter_counts_are_the_published_ones(name, channels, count):
    assert parameters(preset(name, in_channels=channels)) == count


def test_head_has_no_bias_and_no_activation():
    network = DenseUNet(PRESETS["compact"])
    assert network.head.bias is None
    network.head.weight.data.mul_(-1)
    assert network(torch.rand(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_refuses_sides_off_the_stride():
    with pytest.raises(ValueError, match="multiples of the stride 8"):
        DenseUNet(PRESETS["compact"])(torch.zeros(1, 1, 64, 60))


def test_unknown_fields_and_unbalanced_blocks_are_refused():
    with pytest.raises(ValueError, match="same number of blocks"):
        preset("compact", down=(2, 2))


@pytest.mark.parametrize(("architecture", "expected"), [(PRESETS["compact"], (72, 8)), (PRESETS["paper"], (896, 64))])
def test_field_of_the_presets(architecture, expected):
    assert field(architecture) == expected


def linear(architecture):
    """The network with every weight positive and every batch norm the identity: each path shows in the output."""
    network = DenseUNet(architecture).double().eval()
    for parameter in network.parameters():
        parameter.data.abs_()
    return network


def influence(network, side, x):
    """How far from the output pixel at column x a bright input pixel still changes it, to the left and to the right."""
    base = torch.zeros(1, 1, 16, side, dtype=torch.float64)
    with torch.no_grad():
        reference = network(base)[0, 0, :, x]
        columns = []
        for column in range(side):
            bright = base.clone()
            bright[..., column] = 1.0
            if not torch.equal(network(bright)[0, 0, :, x], reference):
                columns.append(column)
    return x - min(columns), max(columns) - x


def test_an_impulse_reaches_exactly_as_far_as_the_derived_halo():
    halo, stride = field(SMALL)
    side = 2 * halo + 6 * stride
    middle = side // 2 // stride * stride
    reach = max(max(influence(linear(SMALL), side, middle + shift)) for shift in range(stride))
    assert halo - stride < reach <= halo


def test_shifting_by_the_stride_shifts_the_output_and_less_does_not():
    halo, stride = field(SMALL)
    torch.manual_seed(0)
    network = DenseUNet(SMALL).double().eval()
    side = 2 * halo + 8 * stride
    image = torch.rand(1, 1, side, side + stride, dtype=torch.float64)
    inside = slice(halo + stride, side - halo - stride)
    with torch.no_grad():
        first = network(image[..., :side])[0, 0, inside, inside]
        for shift in range(1, stride + 1):
            moved = network(image[..., shift : side + shift] if shift < stride else image[..., stride:])
            start, stop = inside.start - shift, inside.stop - shift
            same = torch.allclose(moved[0, 0, inside, start:stop], first, atol=1e-12)
            assert same == (shift == stride)
