"""What registration sees of representations with one channel and with several."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.data import immunohistochemistry
from skimage.transform import resize

from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.pipeline.views import Side, load_views
from comir_batch.pipeline.working import Working
from comir_batch.representation.one_image import principal_axis

SIDE = 128


@pytest.fixture(scope="module")
def texture():
    """A real picture's green channel, mean 0."""
    green = resize(immunohistochemistry()[..., 1].astype(np.float32), (SIDE, SIDE), anti_aliasing=True)
    return green - green.mean()


def store(folder, pixels, dtype):
    folder.mkdir(parents=True)
    array = ZarrArray.create(SlideFiles(folder).pixels, pixels.shape, dtype, chunk=64, shard=64)
    height, width = pixels.shape[1:]
    array.write(Region(0, 0, width, height), pixels.astype(dtype))


def side(folder, representation, tissue=None):
    """A slide whose chunk job is a ramp and whose represent job is given."""
    info = SlideInfo((Level(SIDE, SIDE, 1.0, 1.0),), ("c",), "uint8", 1.0, 1.0, "dark", "test")
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (1, SIDE, SIDE))
    store(folder / "chunk", ramp, "uint8")
    mask = np.ones((SIDE, SIDE), bool) if tissue is None else tissue
    Overview(ramp.copy(), mask, Grid(SIDE, SIDE, 1.0, 1.0)).save(SlideFiles(folder / "chunk").overview)
    store(folder / "represent", representation, "float16")
    return Side(folder / "chunk", folder / "represent", Working(info, 0, 1))


def comir(fixed, moving, factor=1):
    (view,) = (view for view in load_views(fixed, moving, factor) if view.name == "comir")
    return view


def correlation(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def test_one_channel_is_seen_as_it_is(tmp_path, texture):
    image = (texture / 100)[None]
    view = comir(side(tmp_path / "f", image), side(tmp_path / "m", -image))
    assert np.array_equal(view.fixed.pixels, image[0].astype(np.float16).astype(np.float32))
    assert np.array_equal(view.moving.pixels, -view.fixed.pixels)


@pytest.mark.parametrize("factor", [1, 2])
def test_several_channels_are_seen_along_one_axis(tmp_path, texture, factor):
    """The tissue's texture lies along (2, -1, 0); the slides differ by noise and by a large constant."""
    noise = np.random.default_rng(0).normal(0, 1, (2, 3, SIDE, SIDE))
    direction = np.array([2, -1, 0.0])[:, None, None]
    fixed, moving = (direction * texture / 20 + part for part in noise)
    view = comir(
        side(tmp_path / "f", fixed), side(tmp_path / "m", moving + np.array([0, 0, 50])[:, None, None]), factor
    )
    wanted = texture if factor == 1 else texture.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
    assert correlation(view.fixed.pixels, wanted) > 0.95
    assert correlation(view.moving.pixels, wanted) > 0.95
    first = comir(side(tmp_path / "f1", fixed[:1]), side(tmp_path / "m1", moving[:1]), factor)
    alike = correlation(view.fixed.pixels, view.moving.pixels)
    assert alike > correlation(first.fixed.pixels, first.moving.pixels)


def test_only_tissue_decides_the_axis(tmp_path, texture):
    tissue = np.zeros((SIDE, SIDE), bool)
    tissue[:, : SIDE // 2] = True
    pixels = np.stack([texture / 20, np.where(tissue, 0, 500 * np.sign(texture))])
    view = comir(side(tmp_path / "f", pixels, tissue), side(tmp_path / "m", pixels, tissue))
    assert correlation(view.fixed.pixels[tissue], texture[tissue]) > 0.999


def test_unknown_pixels_stay_outside_the_mask(tmp_path, texture):
    pixels = np.stack([texture, -texture]) / 100
    pixels[1, :10] = np.nan
    view = comir(side(tmp_path / "f", pixels), side(tmp_path / "m", pixels))
    assert not view.fixed.mask[:10].any()
    assert view.fixed.mask[10:].all()
    assert np.isfinite(view.fixed.pixels).all()


def test_the_axis_is_that_of_both_slides_and_its_sign_is_fixed():
    generator = np.random.default_rng(0)
    wide, narrow = generator.normal(0, [[3.0], [1.0], [1.0]], (2, 3, 5000)).astype(np.float32)
    axis = principal_axis(wide, narrow)
    assert np.allclose(np.abs(axis), [1, 0, 0], atol=0.1)
    assert axis[0] > 0.99
    assert np.allclose(principal_axis(-wide, -narrow), axis)
    assert np.allclose(principal_axis(narrow, wide), axis)
    few = narrow[[1, 0, 2], :100] * np.float32(2)
    assert principal_axis(wide, few)[1] > 0.9
