"""A manifest of aligned pairs: what training refuses, and at which pixel size it reads."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry

from comir_batch.core.config import ExecutionConfig
from comir_batch.core.errors import ManifestError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import Level, SlideInfo, SlideSpec
from comir_batch.pipeline.pair import Slide
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.pairs import choose_mpp, prepare

HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp"
SERIAL = ExecutionConfig(executor="serial")


@pytest.fixture
def folder(tmp_path):
    rgb = immunohistochemistry()
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[..., ::-1])
    for name, channel in zip(("h", "d"), haematoxylin_dab_channels(rgb), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), channel)
    cv2.imwrite(str(tmp_path / "d_half.png"), cv2.resize(haematoxylin_dab_channels(rgb)[1], (256, 256)))
    return tmp_path


def ready(folder, *rows, header=HEADER, mpp=0.0, purpose="learn"):
    manifest = folder / "pairs.csv"
    manifest.write_text("\n".join([header, *rows]) + "\n")
    return prepare(manifest, folder / "data", mpp, SERIAL, lambda _: None, purpose=purpose)


def problems(folder, *rows, **options):
    with pytest.raises(ManifestError) as caught:
        ready(folder, *rows, **options)
    found = {(problem.row, problem.column): str(problem) for problem in caught.value.problems}
    assert len(found) == len(caught.value.problems)
    return found


def test_pairs_are_chunked_once_and_read_at_their_working_level(folder):
    rows = ("p1,rgb.png,d.png,bright,dab,0.5,0.5", "p2,rgb.png,d_half.png,bright,dab,0.5,1.0")
    made = ready(folder, *rows, mpp=1.0)
    assert made.mpp == 1.0
    assert made.modalities == ("bright", "dab")
    assert made.channels == (3, 1)
    assert made.photometrics == ("brightfield", "dark")
    first, second = made.pairs
    assert (first.name, first.row, second.row) == ("p1", 2, 3)
    assert first.fixed.folder == second.fixed.folder
    assert first.fixed.grid.mpp_x == first.moving.grid.mpp_x == second.moving.grid.mpp_x == 1.0
    pixels = first.fixed.read(Region(100, 120, 140, 150))
    expected = immunohistochemistry()[240:300, 200:280].reshape(30, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.moveaxis(pixels, 0, -1) - expected).max() <= 0.5
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "data" / "work").rglob("*") if path.is_file()}
    ready(folder, *rows, mpp=1.0)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_all_that_is_wrong_is_told_at_once(folder):
    header = HEADER + ",model,initial_transform"
    (folder / "start.json").write_text("{}")
    found = problems(
        folder,
        "p1,h.png,d.png,haematoxylin,dab,0.5,0.5,,",
        "p2,rgb.png,d.png,haematoxylin,dab,0.5,0.5,,",
        "p3,d.png,h.png,dab,haematoxylin,0.5,0.5,,",
        "p4,h.png,d.png,haematoxylin,dab,0.5,0.5,dapi-tritc,",
        "p5,h.png,missing.png,haematoxylin,dab,0.5,0.5,,",
        "p6,h.png,d.png,dab,dab,0.5,0.5,,",
        "p7,h.png,d.png,haematoxylin,dab,0.5,0.5,,start.json",
        "p8,h.png,d.png,dab,dab.h,0.5,0.5,,",
        header=header,
    )
    assert set(found) == {
        (3, "fixed"),
        (4, "fixed_modality"),
        (4, "moving_modality"),
        (5, "model"),
        (6, "moving"),
        (7, "moving_modality"),
        (8, "initial_transform"),
        (9, "moving_modality"),
    }
    assert "has 3 channels (red, green, blue), the slide of row 2 has 1 channels" in found[3, "fixed"]
    assert "dab, but haematoxylin in row 2" in found[4, "fixed_modality"]
    assert "a model is to be trained" in found[5, "model"]
    assert "cannot tell the modalities dab and dab.h apart" in found[9, "moving_modality"]
    assert not (folder / "data").exists()


def test_a_pixel_size_finer_than_a_slide_is_refused(folder):
    rows = ("p1,h.png,d.png,haematoxylin,dab,0.5,0.5", "p2,h.png,d_half.png,haematoxylin,dab,0.5,1.0")
    found = problems(folder, *rows, mpp=0.5)
    assert "has 1 µm/px, coarser than the 0.5 µm/px to train at" in found[3, "moving"]
    assert len(found) == 1


def test_pairs_to_measure_on_are_taken_as_a_run_takes_them(folder):
    header = HEADER + ",model,initial_transform"
    (folder / "start.json").write_text("{}")
    made = ready(folder, "p1,h.png,d.png,haematoxylin,dab,0.7,0.7", mpp=0.5, purpose="measure")
    assert made.mpp == 0.5
    rows = ("p1,h.png,d.png,haematoxylin,dab,0.5,0.5,dapi-tritc,", "p2,h.png,d.png,he,dab,0.5,0.5,,start.json")
    found = problems(folder, *rows, header=header, mpp=0.5, purpose="measure")
    assert "no row chooses the model to measure" in found[2, "model"]
    assert "measuring a model does not move it" in found[3, "initial_transform"]
    assert "leave the row out" in found[3, "fixed_modality"]
    found = problems(folder, "p1,h.png,d_half.png,haematoxylin,dab,0.5,1.0", mpp=0.5, purpose="measure")
    assert "has 1 µm/px, coarser than the 0.5 µm/px of the model" in found[2, "moving"]
    assert not any("train" in problem for problem in found.values())


def test_pixels_that_are_not_finite_are_told_or_masked(folder):
    pixels = haematoxylin_dab_channels(immunohistochemistry())[1].astype(np.float32)
    pixels[40:50, 60:70] = np.nan
    pixels[300, 300] = np.inf
    tifffile.imwrite(folder / "nan.tif", pixels)
    found = problems(folder, "p1,h.png,nan.tif,haematoxylin,dab,0.5,0.5")
    assert "pair p1: nan.tif has 101 pixels that are not finite" in found[2, "moving"]
    assert "moving_mask" in found[2, "moving"]
    mask = np.full((512, 512), 255, dtype=np.uint8)
    mask[30:60, 50:80] = 0
    cv2.imwrite(str(folder / "mask.png"), mask)
    header, row = HEADER + ",moving_mask", "p1,h.png,nan.tif,haematoxylin,dab,0.5,0.5,mask.png"
    assert "has 1 pixels that are not finite" in problems(folder, row, header=header)[2, "moving"]
    mask[290:310, 290:310] = 0
    cv2.imwrite(str(folder / "mask.png"), mask)
    made = ready(folder, row, header=header)
    assert not made.pairs[0].moving.overview().tissue[45, 65]


@pytest.mark.parametrize(
    ("slides", "expected"),
    [
        ([(2048, 0.25), (4096, 0.25)], 1.0),
        ([(512, 0.5), (4096, 0.25)], 0.5),  # the smallest slide keeps 512 pixels
        ([(256, 0.5), (4096, 0.25)], 0.5),  # as fine as there is
        ([(4096, 2.0), (4096, 0.5)], 2.0),
        ([(4096, 0.2282), (4096, 0.2282)], 0.9128),  # four pixels of 0.2282 µm: nothing is interpolated
    ],
)
def test_the_pixel_size_is_a_micrometre_unless_slides_are_small_or_coarse(slides, expected):
    assert choose_mpp([_slide(side, mpp) for side, mpp in slides]) == expected


def _slide(side, mpp):
    info = SlideInfo((Level(side, 2 * side, 1.0, 1.0),), ("0",), "uint8", mpp, mpp, "dark", "image")
    return Slide(SlideSpec("x"), info, "x", "m")
