from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from comir_batch.core.card import Architecture, Input, ModalityCard
from comir_batch.core.errors import ModelError
from comir_batch.core.geometry import Region
from comir_batch.representation.device import resolve_device
from comir_batch.representation.field import field
from comir_batch.representation.inference import Representer, reflected
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.normalise import Range

RANGES = (Range(0.0, 255.0),)
COMPACT = Architecture(in_channels=1, latent_channels=2)
SMALL = Architecture(in_channels=1, init_filters=4, down=(1, 1), bottleneck=1, up=(1, 1), growth=4)


def trained_like(architecture, seed=0):
    """A network with random weights whose batch norm has seen data, as after training."""
    torch.manual_seed(seed)
    network = DenseUNet(architecture)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(2, architecture.in_channels, 64, 64))
    return network.eval()


def representer(architecture=COMPACT, tile=64, **settings):
    card = ModalityCard(modality="dapi", architecture=architecture)
    return Representer(trained_like(architecture), card, "cpu", tile=tile, **settings)


def image(width, height, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (1, height, width), np.uint8)


def whole(subject, pixels):
    """The definition, word for word: numpy's own reflection, one run, one crop."""
    _, height, width = pixels.shape
    halo, stride = field(subject.card.architecture)
    padding = ((0, 0), (halo, halo + -height % stride), (halo, halo + -width % stride))
    padded = np.pad(pixels.astype(np.float32) / np.float32(255), padding, mode="reflect")
    with torch.no_grad():
        result = subject._network(torch.from_numpy(padded)[None])[0].numpy()
    return result[:, halo : halo + height, halo : halo + width]


def part(subject, pixels, region):
    height, width = pixels.shape[1:]
    return subject.represent(lambda r: pixels[:, *r.slices], (width, height), region, RANGES)


@pytest.mark.parametrize(("width", "height"), [(131, 99), (128, 96), (31, 17), (1, 9)])
def test_tiles_equal_the_whole_image(width, height):
    subject, pixels = representer(), image(width, height)
    expected = whole(subject, pixels)
    assert expected.std() > 0.1
    found = part(subject, pixels, Region(0, 0, width, height))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5


def test_a_pixel_that_is_not_finite_is_not_spread():
    subject, pixels = representer(), image(131, 99).astype(np.float32)
    blank, broken = pixels.copy(), pixels.copy()
    blank[0, 40, 50], broken[0, 40, 50] = 0, np.nan
    expected, found = (part(subject, each, Region(13, 5, 120, 78)) for each in (blank, broken))
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 35, 37], [1, 35, 37]]
    assert np.array_equal(found[np.isfinite(found)], expected[np.isfinite(found)])


@pytest.mark.parametrize(
    "box", [(0, 0, 64, 64), (64, 64, 128, 99), (13, 5, 120, 78), (130, 98, 131, 99), (77, 0, 78, 99)]
)
def test_any_region_equals_its_part_of_the_whole(box):
    subject, pixels, region = representer(), image(131, 99), Region(*box)
    found = part(subject, pixels, region)
    assert found.shape == (2, *region.shape)
    assert np.abs(found - whole(subject, pixels)[:, *region.slices]).max() <= 1e-5


def test_the_paper_network_equals_the_whole_although_its_halo_exceeds_the_image():
    architecture = Architecture(in_channels=1, init_filters=4, down=(1,) * 5, bottleneck=1, up=(1,) * 5, growth=4)
    subject, pixels = representer(architecture), image(75, 50)
    assert subject.halo > 75
    assert np.abs(part(subject, pixels, Region(3, 2, 70, 45)) - whole(subject, pixels)[:, 2:45, 3:70]).max() <= 1e-5


def test_tiles_of_a_region_have_one_shape_and_lie_on_the_stride():
    subject = representer(SMALL, tile=64)
    tiles = list(subject._tiles(Region(13, 5, 150, 138)))
    assert len({tile.shape for tile in tiles}) == 1
    assert all(tile.x0 % subject.stride == 0 and tile.y0 % subject.stride == 0 for tile in tiles)
    assert max(tiles[0].shape) <= 64 + subject.stride


def test_threads_compute_in_turn_and_find_what_one_finds():
    subjects = [representer(SMALL, tile=32), representer(SMALL, tile=32)]
    pixels, regions = image(120, 90), [Region(0, 0, 70, 90), Region(50, 0, 120, 90)]
    expected = [part(subject, pixels, region) for subject, region in zip(subjects, regions, strict=True)]
    inside, most = set(), []
    reading = Barrier(2, timeout=20)

    def enter(network, _inputs):
        inside.add(network)
        most.append(len(inside))

    def leave(network, _inputs, _output):
        inside.discard(network)

    for subject in subjects:
        subject._network.register_forward_pre_hook(enter)
        subject._network.register_forward_hook(leave)

    def read(region):
        reading.wait()  # breaks unless both read at once
        return pixels[:, *region.slices]

    def work(number):
        return [subjects[number].represent(read, (120, 90), regions[number], RANGES) for _ in range(10)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    assert len(most) > 100
    assert max(most) == 1
    for number in range(2):
        assert all(np.array_equal(result, expected[number]) for result in found[number])


def test_reads_once_and_only_inside_the_image():
    subject, pixels, regions = representer(SMALL), image(60, 40), []

    def read(region):
        regions.append(region)
        return pixels[:, *region.slices]

    subject.represent(read, (60, 40), Region(50, 30, 60, 40), RANGES)
    assert len(regions) == 1
    assert regions[0].within(60, 40) == regions[0]


def test_reflection_is_that_of_numpy_however_far():
    expected = np.pad(np.arange(5), 23, mode="reflect")
    assert np.array_equal(reflected(-23, 28, 5), expected)
    assert np.array_equal(reflected(-2, 3, 1), np.zeros(5))


def test_features_are_the_output_and_the_bottleneck_behind_it():
    subject = representer()
    pixels = np.random.default_rng(0).random((1, 40, 64), np.float32)
    output, bottleneck = subject.features(pixels)
    assert np.array_equal(output, subject.run(pixels))
    with torch.no_grad():
        expected = subject._network.with_bottleneck(torch.from_numpy(pixels)[None])[1][0].numpy()
    assert bottleneck.shape == (36, 5, 8)
    assert np.allclose(bottleneck, expected, atol=1e-5)
    assert (output.dtype, bottleneck.dtype) == (np.float32, np.float32)


def test_bfloat16_is_close():
    pixels, region = image(90, 70), Region(0, 0, 90, 70)
    exact = part(representer(), pixels, region)
    error = part(representer(precision="bfloat16"), pixels, region) - exact
    assert error.std() < 0.1 * exact.std()


def test_memory_grows_with_the_block_only():
    subject = Representer(DenseUNet(COMPACT), ModalityCard(modality="dapi", architecture=COMPACT), "cpu")
    assert subject.memory_mb(512) < subject.memory_mb(1024) < subject.memory_mb(4096) < 4000


def test_refuses_what_does_not_fit():
    subject = representer(SMALL)
    with pytest.raises(ModelError, match="takes 1 channels, the slide has 3"):
        subject.represent(lambda r: np.zeros((3, *r.shape), np.uint8), (40, 40), Region(0, 0, 40, 40), RANGES * 3)
    with pytest.raises(ValueError, match="leaves the image"):
        part(subject, image(40, 40), Region(0, 0, 41, 40))


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_is_never_silently_replaced():
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ModelError, match="no CUDA device"):
        resolve_device("cuda")


def test_the_input_of_the_card_is_applied():
    card = ModalityCard(modality="dapi", architecture=SMALL, input=Input(reduction="max"))
    subject = Representer(trained_like(SMALL), card, "cpu")
    pixels = image(40, 40)
    colour = np.concatenate([np.zeros_like(pixels), pixels, np.zeros_like(pixels)])
    assert np.array_equal(
        part(subject, colour, Region(0, 0, 40, 40)), part(representer(SMALL), pixels, Region(0, 0, 40, 40))
    )
