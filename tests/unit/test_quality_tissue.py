"""Tissue masks: on made-up images whose truth is known, and on real ones whose truth is plain to see."""

import cv2
import numpy as np
import openslide
import pytest

from comir_batch.quality.tissue import tissue_mask

RANDOM = np.random.default_rng(0)


def disc(side=400, radius=120):
    y, x = np.mgrid[:side, :side]
    return np.hypot(x - side / 2, y - side / 2) < radius


def brightfield(mask, glass=243.0, stain=(0.6, 0.35, 0.75)):
    image = np.where(mask, glass * np.array(stain)[:, None, None], glass)
    return np.clip(image + RANDOM.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def fluorescence(mask, background=120.0, noise=10.0):
    """Bright nuclei scattered over a faint tissue, in 16 bits."""
    nuclei = cv2.GaussianBlur((RANDOM.random(mask.shape) < 0.01).astype(np.float32), (0, 0), 2.0)
    image = background + mask * (200.0 + 40_000.0 * nuclei) + RANDOM.normal(0, noise, mask.shape)
    return np.clip(image, 0, 65535).astype(np.uint16)[None]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_brightfield_disc():
    mask = tissue_mask(brightfield(disc()), "brightfield")
    assert mask.shape == (400, 400)
    assert dice(mask, disc()) > 0.93
    assert mask[disc()].all()


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_brightfield_of_more_bits_is_seen_like_that_of_eight(bits):
    for image in (brightfield(disc()), brightfield(np.ones((400, 400), bool))):  # and a field without glass
        eight = tissue_mask(image, "brightfield")
        more = (image * ((2**bits - 1) / 255)).astype(np.uint16)
        assert dice(tissue_mask(more, "brightfield"), eight) > 0.99


def test_faint_counterstain():
    assert dice(tissue_mask(brightfield(disc(), stain=(0.88, 0.87, 0.9)), "brightfield"), disc()) > 0.93


def test_fluorescence_disc():
    mask = tissue_mask(fluorescence(disc()), "dark")
    assert dice(mask, disc()) > 0.85
    assert mask[disc(radius=110)].all()


def test_a_channel_of_noise_adds_nothing():
    noise = RANDOM.normal(100, 5, (1, 400, 400)).clip(0).astype(np.uint16)
    both = np.concatenate([fluorescence(disc()), noise])
    assert dice(tissue_mask(both, "dark"), disc()) > 0.85


def test_specks_are_dropped_and_small_holes_filled():
    truth = disc()
    truth[195:203, 195:203] = False
    truth[30:33, 30:33] = True
    mask = tissue_mask(brightfield(truth), "brightfield")
    assert mask[199, 199]
    assert not mask[31, 31]


def test_black_padding_is_not_tissue():
    image = brightfield(disc())
    image[:, :, :60] = 0
    mask = tissue_mask(image, "brightfield")
    assert not mask[:, :50].any()
    assert dice(mask, disc()) > 0.9


@pytest.mark.parametrize(("photometric", "value"), [("brightfield", 240), ("dark", 3), ("dark", 0)])
def test_a_blank_image_has_no_tissue(photometric, value):
    assert not tissue_mask(np.full((3, 200, 300), value, np.uint8), photometric).any()


def test_empty_glass_has_no_tissue():
    assert not tissue_mask(brightfield(np.zeros((300, 300), bool)), "brightfield").any()


def test_fields_without_background_are_tissue_everywhere():
    grey = cv2.GaussianBlur(RANDOM.normal(size=(300, 300)), (0, 0), 2.0)
    phase = (32_768 + 8_000 * grey / grey.std()).clip(0, 65535).astype(np.uint16)[None]
    assert tissue_mask(phase, "dark").all()
    stained = brightfield(np.ones((300, 300), bool))
    assert tissue_mask(stained, "brightfield").all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
def test_any_dtype(dtype):
    image = (fluorescence(disc())[0] / 65535 * (1 if dtype.startswith("f") else np.iinfo(dtype).max)).astype(dtype)
    assert tissue_mask(image[None], "dark")[disc(radius=60)].mean() > 0.9


def level(path, index):
    with openslide.OpenSlide(path) as slide:
        pixels = np.asarray(slide.read_region((0, 0), index, slide.level_dimensions[index]))[..., :3]
    return np.moveaxis(pixels, -1, 0)


@pytest.mark.parametrize("index", [3, 4, 5])
def test_two_fluorescences_of_one_section_agree(ndpi_pair, index):
    dapi, tritc = (tissue_mask(level(path, index), "dark") for path in ndpi_pair)
    assert dice(dapi, tritc) > 0.95
    assert 0.8 < dapi.mean() < 0.95


def test_serial_sections_in_different_stains(shared_data):
    shares = {}
    for path in sorted((shared_data / "histology_landmarks").glob("rat_kidney/images_*/*.jpg")):
        image = np.moveaxis(cv2.imread(str(path), cv2.IMREAD_REDUCED_COLOR_2), -1, 0)
        shares[path.stem] = tissue_mask(image, "brightfield").mean()
    assert len(shares) == 3
    assert max(shares.values()) - min(shares.values()) < 0.05
    assert all(0.6 < share < 0.72 for share in shares.values()), shares


def test_phase_contrast_is_tissue_everywhere(shared_data):
    path = next((shared_data / "phase_fluorescence").rglob("phase_contrast_z6.png"))
    assert tissue_mask(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[None], "dark").all()


def test_glass_with_a_bright_speck_is_blank():
    glass = np.full((3, 500, 500), 240, np.uint8)
    glass[:, 250, 250] = 255
    assert not tissue_mask(glass, "brightfield").any()
