"""Pairs that are not aligned are found before they are learnt from; aligned ones raise no alarm."""

from __future__ import annotations

from functools import partial
from itertools import count

import cv2
import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry

from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import ManifestError
from comir_batch.training.alignment import _most_agreeing, _turn_and_shift, in_words, measure, require_aligned
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.pairs import prepare
from comir_batch.training.shift_surface import SIDE, Peak, find_peak, fixed_spectra, moving_spectra
from comir_batch.training.split import WHOLE, Box, split
from comir_batch.training.turned import Turn

TOLERANCE = 4.0


def moved(image, angle=0.0, shift=(0.0, 0.0)):
    """Return an image turned clockwise about its middle and shifted right and down."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle, 1.0)
    matrix[:, 2] += shift
    border = cv2.BORDER_REFLECT_101
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=border)


def pairs_of(folder, numbers, *images):
    """Prepare pairs of a fixed image and moving ones, of a pixel a micrometre."""
    paths = []
    for image in images:
        paths.append(f"{next(numbers)}.tif")
        rgb = {"photometric": "rgb"} if image.ndim == 3 else {}
        tifffile.imwrite(folder / paths[-1], image, **rgb)
    rows = [f"p{k},{paths[0]},{path},first,second,1,1" for k, path in enumerate(paths[1:])]
    manifest = folder / f"{next(numbers)}.csv"
    header = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp"
    manifest.write_text("\n".join([header, *rows]) + "\n")
    serial = ExecutionConfig(executor="serial")
    return prepare(manifest, folder / f"{manifest.stem}-data", 1.0, serial, lambda _: None).pairs


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return partial(pairs_of, tmp_path_factory.mktemp("alignment"), count())


@pytest.fixture(scope="module")
def stains():
    return haematoxylin_dab_channels(immunohistochemistry())


@pytest.fixture(scope="module")
def ihc(make, stains):
    first, second = stains
    changed = (
        second,
        moved(second, shift=(6, 0)),
        moved(second, shift=(-5, 14)),
        moved(second, angle=-4.5, shift=(0, 8)),
        np.ascontiguousarray(second[:, ::-1]),
        # Detail that has nothing to do with the fixed image's.
        np.random.default_rng(0).integers(0, 255, second.shape, np.uint8),
    )
    return make(first, *changed)


def test_an_aligned_pair_is_known_to_be(ihc):
    found = measure(ihc[0], WHOLE)
    assert found.known
    assert found.off_px < 1.0
    assert abs(found.angle_deg) < 0.2
    assert found == measure(ihc[0], WHOLE)


@pytest.mark.parametrize(("number", "shift", "words"), [(1, (6, 0), "to the right"), (2, (-5, 14), "downwards")])
def test_a_shift_is_measured_and_said(ihc, number, shift, words):
    found = measure(ihc[number], WHOLE)
    assert found.known
    assert found.shift_um == pytest.approx(np.hypot(*shift), abs=1.0)
    assert abs(found.angle_deg) < 0.3
    assert words in found.sentence
    assert f"pair p{number}: the moving image lies" in found.sentence


@pytest.mark.parametrize("shift", [23, 30, 60, 120])
def test_a_shift_beyond_the_reach_of_tiles_is_measured_coarsely(make, stains, shift):
    first, second = stains
    (pair,) = make(first[:, :380].copy(), second[:, shift : shift + 380].copy())
    found = measure(pair, WHOLE)
    assert found.known
    assert found.off_px == pytest.approx(shift, abs=3)
    assert "lies about" in found.sentence
    assert "to the left" in found.sentence


def test_a_peak_near_the_end_of_the_reach_is_said_to_be_the_least(make, shared_data):
    first, second = _phase(shared_data, "phase_contrast_z6.png"), _phase(shared_data, "NFH_confocal_maxproj.png")
    (pair,) = make(first[:, :924].copy(), second[:, 24:948].copy())
    assert "lies at least 22" in measure(pair, WHOLE).sentence


def test_it_is_said_loudly_where_nothing_can_be_told_of_any_pair(ihc):
    found = [measure(ihc[5], WHOLE)]
    assert in_words(found * 2)[-1].startswith("CAREFUL: of none of the pairs (2) can be told whether it is aligned")
    assert in_words([*found, measure(ihc[0], WHOLE)])[-1].startswith("pair p0: ")
    assert in_words([]) == ()


def test_a_turn_is_measured_and_said(ihc):
    found = measure(ihc[3], WHOLE)
    assert found.known
    assert found.angle_deg == pytest.approx(-4.5, abs=0.8)
    assert found.off_px > 8
    assert "is turned by" in found.sentence


def test_a_mirrored_image_is_named(ihc):
    found = measure(ihc[4], WHOLE)
    assert found.known
    assert found.off_px == np.inf
    assert found.sentence.endswith("looks mirrored left to right")


def test_unrelated_images_cannot_be_told(ihc):
    found = measure(ihc[5], WHOLE)
    assert not found.known
    assert "cannot be told" in found.sentence


def test_every_misaligned_row_is_refused_with_its_measure(ihc):
    both = split(ihc[:3], (0.0, 0.0, 1.0, 1.0), 0.2, 1)
    parts = (*both.training, *both.validation)
    with pytest.raises(ManifestError) as caught:
        require_aligned(ihc[:3], parts, tolerance_px=TOLERANCE)
    assert [problem.row for problem in caught.value.problems] == [3, 4]
    assert all("--from-run" in problem.remedy for problem in caught.value.problems)
    assert list(require_aligned(ihc[:3], parts, enforced=False)) == ["p0", "p1", "p2"]
    with pytest.raises(ManifestError, match="hold out what is aligned"):
        require_aligned(ihc[:3], parts, measured=True)


def test_only_the_given_part_is_looked_at(make, stains):
    first, second = stains
    halves = np.concatenate([second[:256], moved(second, shift=(15, 0))[256:]])
    (pair,) = make(first, halves)
    assert measure(pair, Box(y1=256.0)).off_px < 1.5
    assert measure(pair, Box(y0=256.0)).shift_um == pytest.approx(15, abs=1)


def test_the_peak_is_found_between_pixels_and_needs_something_to_compare(stains):
    image = stains[0][:SIDE, :SIDE].astype(np.float32)
    everywhere = np.ones((SIDE, SIDE), dtype=bool)
    other = moving_spectra(255 - moved(image, shift=(3.5, -7)), everywhere)
    peak = find_peak([(fixed_spectra(image, everywhere), other)])
    assert peak.x == pytest.approx(3.5, abs=0.3)
    assert peak.y == pytest.approx(-7, abs=0.3)
    assert find_peak([]).z == 0
    assert find_peak([(fixed_spectra(image, ~everywhere), other)]).z == 0


def test_groups_that_disagree_with_most_are_left_out():
    places = np.array([(x, y) for x in (-100.0, 0.0, 100.0) for y in (-100.0, 100.0)])
    shifts = (2.0, -1.0) + 0.02 * np.stack([-places[:, 1], places[:, 0]], axis=1)
    shifts[0] = (20.0, -21.0)
    agreeing = _most_agreeing(places, shifts)
    assert agreeing.tolist() == [False, True, True, True, True, True]
    at_middle, angle = _turn_and_shift(places[agreeing], shifts[agreeing])
    assert np.allclose(at_middle, (2, -1))
    assert angle == pytest.approx(0.02)


def test_what_is_best_at_the_end_of_what_was_tried_is_not_believed():
    assert Turn("", 9.0, Peak(23.0 - 1e-6, 0.0, 30.0), 1.0).clear
    assert not Turn("", 10.5, Peak(0.0, 0.0, 30.0), 1.0).clear
    assert not Turn("mirrored left to right", 0.0, Peak(-2.0, 23.5, 30.0), 1.0).clear
    assert not Turn("", 1.5, Peak(0.0, 0.0, 11.0), 1.0).clear


def _phase(shared_data, name):
    return cv2.imread(str(shared_data / "phase_fluorescence" / "condition_blue_A4" / name), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("stain", ["NFH", "MAP2", "DAPI"])
def test_phase_contrast_and_fluorescence_raise_no_alarm(make, shared_data, stain):
    second = _phase(shared_data, f"{stain}_confocal_maxproj.png")
    pair, shifted = make(_phase(shared_data, "phase_contrast_z6.png"), second, moved(second, shift=(9, 0)))
    assert measure(pair, WHOLE).off_px < TOLERANCE
    found = measure(shifted, WHOLE)
    assert found.known
    assert found.off_px > 6


@pytest.mark.parametrize("name", ["m_3607717_sw_18_1_20160620_subset.tif", "m_3607824_se_17_1_20160620_subset.tif"])
def test_colour_and_near_infrared_raise_no_alarm(make, shared_data, name):
    scene = tifffile.imread(shared_data / "rgb_nir" / "naip" / name)
    colour, infrared = np.ascontiguousarray(scene[..., :3]), np.ascontiguousarray(scene[..., 3])
    pair, shifted = make(colour, infrared, moved(infrared, shift=(0, -6)))
    assert measure(pair, WHOLE).off_px < 1
    assert measure(shifted, WHOLE).shift_um == pytest.approx(6, abs=0.5)


def test_two_fluorescence_scans_raise_no_alarm(ndpi_pair, tmp_path):
    header = "pair_id,fixed,moving,fixed_modality,moving_modality"
    (tmp_path / "pairs.csv").write_text(f'{header}\np1,"{ndpi_pair[0]}","{ndpi_pair[1]}",dapi,tritc\n')
    serial = ExecutionConfig(executor="serial")
    (pair,) = prepare(tmp_path / "pairs.csv", tmp_path / "data", 0.0, serial, lambda _: None).pairs
    found = measure(pair, WHOLE)
    assert found.known
    assert found.off_px < 1
