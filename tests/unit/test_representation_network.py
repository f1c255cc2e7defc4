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


FIELDS = {
    "small": SMALL,
    "compact": PRESETS["compact"],
    "zurich": PRESETS["zurich"],
    "paper, narrower": preset("paper", init_filters=1, growth=1),  # as deep, and pooled as often
}


def strip(architecture):
    """Sides in pixels of an image whose middle columns no border reaches, and the first of them."""
    halo, stride = field(architecture)
    return stride, 2 * halo + 4 * stride, halo + stride


def reach(network, sides, column):
    """How far from one bright pixel the output changes, to the left and to the right."""
    image = torch.zeros(1, network.stem.in_channels, *sides, dtype=torch.float64)
    image[0, 0, 0, column] = 1.0
    with torch.no_grad():
        changed = network(image).any(dim=(0, 1, 2)).nonzero()
    return column - int(changed.min()), int(changed.max()) - column


@pytest.mark.parametrize("architecture", FIELDS.values(), ids=FIELDS)
def test_an_impulse_reaches_exactly_as_far_as_the_derived_halo(architecture):
    network = DenseUNet(architecture).double().eval()
    for name, parameter in network.named_parameters():  # what is 0 stays 0, and no ReLU or pooling hides what is not
        parameter.data.abs_().mul_(0 if name.endswith("bias") else 1)
    halo, stride = field(architecture)
    height, width, start = strip(architecture)
    places = (stride // 2 - 1, stride // 2)  # the middle ones reach farthest
    farthest = max(max(reach(network, (height, width), start + place)) for place in places)
    assert halo - stride < farthest <= halo


@pytest.mark.parametrize("architecture", FIELDS.values(), ids=FIELDS)
def test_shifting_by_the_stride_shifts_the_output_and_less_does_not(architecture):
    torch.manual_seed(0)
    network = DenseUNet(architecture).double().eval()
    _, stride = field(architecture)
    height, width, start = strip(architecture)
    image = torch.rand(1, architecture.in_channels, height, width + stride, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image[..., :width])[..., start:-start]
        for shift in (1, stride):
            moved = network(image[..., shift : width + shift])[..., start - shift : width - start - shift]
            assert torch.allclose(moved, expected, rtol=0, atol=1e-12) == (shift == stride)


def test_the_bottleneck_is_a_stride_coarser_and_the_output_is_the_same():
    torch.manual_seed(0)
    architecture = preset("compact", latent_channels=2)
    network, images = DenseUNet(architecture).eval(), torch.rand(2, 1, 32, 48)
    with torch.no_grad():
        output, bottleneck = network.with_bottleneck(images)
        assert torch.equal(output, network(images))
    assert bottleneck.shape == (2, 36, 4, 6)
    assert (network.bottleneck_channels, network.stride) == (36, 8)
    assert DenseUNet(PRESETS["paper"]).bottleneck_channels == 48
