"""The overview of a slide: its thumbnail, the tissue found on it, and the user's mask instead."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  read by no tool, but by people

import numpy as np
import pytest
import tifffile
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.core.geometry import Grid
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.pipeline.overview import Overview, make_overview
from comir_batch.pipeline.stages.chunk import background
from comir_batch.training.ihc import haematoxylin_dab_channels


def slide(folder: Path, pixels: np.ndarray) -> SlideSpec:
    path = folder / "slide.ome.tif"
    write_pyramid(pixels, Grid(pixels.shape[2], pixels.shape[1], 0.5, 0.5), path, ["stain"])
    return SlideSpec(path)


def test_the_user_s_mask_stands_in_for_the_tissue_whatever_its_size(tmp_path):
    stain = haematoxylin_dab_channels(immunohistochemistry())[:1, :300]
    drawn = np.zeros((20, 64), bool)
    drawn[:, 32:] = True  # the right half
    with open_slide(slide(tmp_path, stain)) as source:
        overview = make_overview(source, drawn)
    assert not overview.tissue[:, :255].any()
    assert overview.tissue[:, 257:].all()


def test_pixels_that_are_no_numbers_are_no_tissue(tmp_path):
    stain = haematoxylin_dab_channels(immunohistochemistry())[:1, :300].astype(np.float32)
    stain[:, 100:120, 200:230] = np.nan
    with open_slide(slide(tmp_path, stain)) as source:
        overview = make_overview(source)
    assert overview.tissue.any()
    assert not overview.tissue[100:120, 200:230].any()


def test_a_single_pixel_that_is_no_number_takes_no_tissue_with_it(tmp_path):
    stain = np.tile(haematoxylin_dab_channels(immunohistochemistry())[:1], (1, 3, 3)).astype(np.float32)
    with open_slide(slide(tmp_path, stain)) as source:
        whole = make_overview(source)
    stain[:, ::7, ::7] = np.nan
    tifffile.imwrite(tmp_path / "one.tif", stain[0])
    with open_slide(SlideSpec(tmp_path / "one.tif", mpp=0.5)) as source:
        overview = make_overview(source)
    assert np.isfinite(overview.pixels).all()
    assert (overview.tissue == whole.tissue).mean() > 0.95


@pytest.mark.parametrize("kind", ["rgb8", "rgb16", "grey8", "grey float"])
def test_a_transmission_scan_is_one_in_any_type(tmp_path, kind):
    scan = immunohistochemistry()
    glass = np.full((1000, 1000, 3), 243, np.uint8)
    glass[200:712, 300:812] = scan
    pixels, photometric = {
        "rgb8": (glass, ""),
        "rgb16": (glass.astype(np.uint16) * 257, ""),
        "grey8": (glass.min(axis=2), "brightfield"),
        "grey float": (glass.min(axis=2).astype(np.float32) / 255, "brightfield"),
    }[kind]
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0, photometric=photometric)) as source:
        info, overview = source.info, make_overview(source)
    white = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    assert background(info.photometric, info.dtype) == white
    assert overview.tissue[250:650, 350:750].mean() > 0.8
    assert not overview.tissue[:150].any()


def test_it_survives_a_file(tmp_path):
    made = Overview(np.arange(24).reshape(1, 4, 6), np.eye(4, 6, dtype=bool), Grid(6, 4, 2.0, 3.0, 0.5, 1.0))
    made.save(tmp_path / "overview.npz")
    loaded = Overview.load(tmp_path / "overview.npz")
    assert loaded.grid == made.grid
    np.testing.assert_array_equal(loaded.pixels, made.pixels)
    np.testing.assert_array_equal(loaded.tissue, made.tissue)
