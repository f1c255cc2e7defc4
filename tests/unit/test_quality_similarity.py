"""Held-out similarity tells aligned images from wrong ones, in made-up and in real pairs."""

import numpy as np
import openslide
import pytest
from scipy import ndimage

from comir_batch.quality.similarity import Layer, compare, tile_similarity
from comir_batch.quality.tissue import tissue_mask

TILE = 32


def texture(shape, seed, sigma=2.0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (noise / noise.std()).astype(np.float32)


def everywhere(pixels):
    return Layer(pixels, np.ones(pixels.shape, bool))


def moved(layer, dx, dy):
    return Layer(np.roll(layer.pixels, (dy, dx), (0, 1)), np.roll(layer.mask, (dy, dx), (0, 1)))


def held_out(mask, share=0.25, seed=0):
    cells = np.random.default_rng(seed).random((-(-mask.shape[0] // TILE), -(-mask.shape[1] // TILE))) < share
    return mask & np.kron(cells, np.ones((TILE, TILE), bool))[: mask.shape[0], : mask.shape[1]]


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_aligned_copies_stand_out(metric):
    pixels = texture((256, 320), 0)
    noisy = everywhere(pixels + texture(pixels.shape, 1))
    found = compare(everywhere(pixels), moved(noisy, 20, 9), noisy, tile=TILE, metric=metric)
    assert found.tiles == 80
    assert found.z > 20
    assert abs(found.z_before) < 4
    assert found.share_improved > 0.95
    assert found.after > found.before


def test_mutual_information_sees_what_correlation_cannot():
    pixels = texture((256, 256), 0)
    folded = everywhere(np.abs(pixels))
    wrong = moved(folded, 40, 0)
    assert compare(everywhere(pixels), wrong, folded, tile=TILE, metric="mi").z > 20
    assert compare(everywhere(pixels), wrong, folded, tile=TILE, metric="ncc").after < 0.1


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_unrelated_images_do_not_stand_out(metric):
    scores = []
    for seed in range(6):
        fixed, moving = everywhere(texture((160, 192), seed)), everywhere(texture((160, 192), 100 + seed))
        scores.append(compare(fixed, moving, moving, tile=TILE, metric=metric).z)
    assert max(scores) < 4
    assert abs(np.median(scores)) < 1.5


@pytest.mark.parametrize("metric", ["ncc", "mi"])
@pytest.mark.parametrize("width", [TILE, 2 * TILE, 3 * TILE])
def test_unrelated_images_do_not_stand_out_where_tissue_is_narrow(metric, width):
    """Most wrong offsets lay nothing on a strip: that says nothing of how alike wrong alignments are."""
    strip = np.zeros((640, 800), bool)
    strip[320 : 320 + width] = True
    scores = []
    for seed in range(4):
        fixed, moving = texture(strip.shape, seed), texture(strip.shape, 100 + seed)
        found = compare(
            Layer(fixed, held_out(strip)), Layer(moving, strip), Layer(moving, strip), tile=TILE, metric=metric
        )
        assert found.tiles > 0
        scores.append(found.z)
    assert max(np.abs(scores)) < 4


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_an_alignment_of_narrow_tissue_stands_out(metric):
    strip = np.zeros((640, 800), bool)
    strip[320 : 320 + 2 * TILE] = True
    pixels = texture(strip.shape, 0)
    noisy = Layer(pixels + texture(strip.shape, 1), strip)
    assert 8 < compare(Layer(pixels, held_out(strip)), noisy, noisy, tile=TILE, metric=metric).z < 100


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_where_no_wrong_alignment_leaves_a_tile_significance_is_not_known(metric):
    """Thresholds of verdicts rest on nulls of many wrong alignments."""
    pixels = everywhere(texture((640, 640), 0))
    island = np.zeros(pixels.mask.shape, bool)
    island[320 : 320 + TILE // 2 + 1, 320 : 320 + TILE // 2 + 1] = True  # a quarter of one tile: it has to stay there
    found = compare(Layer(pixels.pixels, island), pixels, Layer(pixels.pixels, island), tile=TILE, metric=metric)
    assert found.tiles == 1
    assert found.z is None
    assert found.z_before is not None


@pytest.mark.parametrize(
    ("metric", "z_before", "z"), [("ncc", 2.124627961305, 11.018665192340), ("mi", 0.375046779182, 19.394960125457)]
)
def test_significance_where_tissue_is_wide_is_what_thresholds_were_chosen_by(metric, z_before, z):
    pixels, mask = texture((256, 320), 0), np.zeros((256, 320), bool)
    mask[20:240, 30:300] = True
    noisy = everywhere(pixels + 2 * texture(pixels.shape, 1))
    found = compare(Layer(pixels, held_out(mask)), moved(noisy, 20, 9), noisy, tile=TILE, metric=metric)
    assert (found.z_before, found.z) == pytest.approx((z_before, z), rel=1e-4)


@pytest.mark.parametrize("metric", ["ncc", "mi"])
@pytest.mark.parametrize("blank", ["fixed", "moving", "both"])
def test_blank_images_give_zeros_not_nans(metric, blank):
    textured, flat = everywhere(texture((128, 160), 0)), everywhere(np.full((128, 160), 7.0, np.float32))
    fixed = textured if blank == "moving" else flat
    moving = textured if blank == "fixed" else flat
    found = compare(fixed, moving, moving, tile=TILE, metric=metric)
    numbers = [found.before, found.after, found.z, found.z_before, found.share_improved]
    assert np.isfinite(numbers).all()
    assert np.allclose(numbers, 0)


@pytest.mark.parametrize("shape", [(20, 20), (31, 400), (200, 170)])
@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_small_images_and_empty_masks(shape, metric):
    pixels = texture(shape, 0)
    empty = Layer(pixels, np.zeros(shape, bool))
    found = compare(empty, everywhere(pixels), everywhere(pixels), tile=TILE, metric=metric)
    assert (found.tiles, found.z, found.after) == (0, None, 0.0)
    found = compare(everywhere(pixels), empty, empty, tile=TILE, metric=metric)
    assert (found.tiles, found.z, found.share_improved) == (0, None, 0.0)


def test_only_masked_tiles_count():
    pixels = texture((256, 256), 0)
    mask = np.zeros(pixels.shape, bool)
    mask[:64, :96] = True
    values, weights = tile_similarity(Layer(pixels, mask), everywhere(pixels), tile=TILE, metric="ncc")
    assert values.shape == weights.shape == (8, 8)
    assert (weights[:2, :3] == TILE**2).all()
    assert weights.sum() == 6 * TILE**2
    np.testing.assert_allclose(values[:2, :3], 1, atol=1e-5)


def test_tiles_agree_with_numpys_correlation():
    a, b = texture((96, 96), 0), texture((96, 96), 1) + 0.5 * texture((96, 96), 0)
    mask = np.random.default_rng(0).random(a.shape) < 0.7
    values, _ = tile_similarity(Layer(a, mask), everywhere(b), tile=TILE, metric="ncc")
    for row in range(3):
        for column in range(3):
            at = np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            assert values[row, column] == pytest.approx(np.corrcoef(a[at][mask[at]], b[at][mask[at]])[0, 1], abs=1e-4)


def test_same_seed_same_numbers():
    fixed, moving = everywhere(texture((128, 128), 0)), everywhere(texture((128, 128), 1))
    first, second = (compare(fixed, moving, moving, tile=TILE, metric="mi", seed=5) for _ in range(2))
    assert first == second


@pytest.fixture(scope="module")
def section(ndpi_pair):
    layers = []
    for path in ndpi_pair:
        with openslide.OpenSlide(path) as slide:
            pixels = np.asarray(slide.read_region((0, 0), 3, slide.level_dimensions[3]))[..., :3]
        layers.append(Layer(pixels.max(axis=2).astype(np.float32), tissue_mask(np.moveaxis(pixels, -1, 0), "dark")))
    dapi, tritc = layers
    return Layer(dapi.pixels, held_out(dapi.mask)), tritc


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_real_section_aligned(section, metric):
    fixed, moving = section
    found = compare(fixed, moved(moving, 30, 20), moving, tile=TILE, metric=metric)
    assert found.z > 12
    assert found.z_before < 4
    assert found.share_improved > 0.8


@pytest.mark.parametrize("metric", ["ncc", "mi"])
@pytest.mark.parametrize("wrong", ["35 px off along both axes", "upside down", "mirrored"])
def test_real_section_wrongly_aligned(section, metric, wrong):
    fixed, moving = section
    turned = {
        "35 px off along both axes": moved(moving, 35, 35),
        "upside down": Layer(moving.pixels[::-1, ::-1], moving.mask[::-1, ::-1]),
        "mirrored": Layer(moving.pixels[:, ::-1], moving.mask[:, ::-1]),
    }[wrong]
    assert compare(fixed, moving, turned, tile=TILE, metric=metric).z < 4
