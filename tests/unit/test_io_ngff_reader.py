import json

import numpy as np
import pytest
import zarr
from ome_zarr.format import FormatV04
from ome_zarr.writer import write_image

from comir_batch.core.config import WarpConfig
from comir_batch.core.errors import MissingPixelSizeError, SlideError, UnreadableSlideError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.core.transform import Composite
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.open import open_slide
from comir_batch.io.slide_reader import PIXEL_TYPES
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.warp.resample import warp_block

_PLANES = np.random.default_rng(0).integers(0, 60_000, (2, 100, 150)).astype(np.uint16)


def _ours(folder, channels=("DAPI", "TRITC"), *, is_rgb=False, dtype="uint16"):
    grid = Grid(150, 100, 0.5, 0.25)
    pixels = np.resize(_PLANES, (len(channels), 100, 150)).astype(dtype)
    for index, (level, image) in enumerate([(grid, pixels), (grid.reduced(2), pixels[:, ::2, ::2])]):
        array = ZarrArray.create(folder / str(index), image.shape, dtype, chunk=32, shard=64)
        for y in range(0, level.height, 64):
            region = Region(0, y, level.width, min(y + 64, level.height))
            array.write(region, image[:, *region.slices])
    write_ngff_metadata(folder, NgffImage("x", (grid, grid.reduced(2)), channels, dtype, is_rgb))
    return pixels


def _theirs(folder, pixels, axes, unit="nanometer"):
    """OME-Zarr 0.4 as another writer makes it."""
    scale = dict.fromkeys(axes, 1.0) | {"y": 250.0, "x": 500.0}
    units = {axis: unit for axis in axes if axis in "zyx"} if unit else None
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    write_image(pixels, group, fmt=FormatV04(), axes=axes, scale=scale, axes_units=units, scale_factors=())


def test_version_05_as_we_write_it(tmp_path):
    pixels = _ours(tmp_path / "a b.zarr")
    with open_slide(SlideSpec(tmp_path / "a b.zarr")) as slide:
        info = slide.info
        assert (info.reader, info.channels, info.dtype) == ("ome-zarr", ("DAPI", "TRITC"), "uint16")
        assert (info.mpp_x, info.mpp_y, len(info.levels)) == (0.5, 0.25, 2)
        assert (slide.read(Region(3, 4, 150, 100)) == pixels[:, 4:, 3:]).all()
        assert (slide.read(Region(3, 4, 75, 50, 1)) == pixels[:, ::2, ::2][:, 4:, 3:]).all()
    with open_slide(SlideSpec(tmp_path / "a b.zarr", channel="TRITC")) as slide:
        assert (slide.read(Region(3, 4, 150, 100)) == pixels[1:, 4:, 3:]).all()


def test_rgb_is_known_by_its_labels(tmp_path):
    _ours(tmp_path / "a.zarr", ("red", "green", "blue"), is_rgb=True, dtype="uint8")
    with open_slide(SlideSpec(tmp_path / "a.zarr")) as slide:
        assert slide.info.is_rgb


def test_version_04(tmp_path):
    _theirs(tmp_path / "a.zarr", _PLANES[None, :, None], "tczyx")
    with open_slide(SlideSpec(tmp_path / "a.zarr")) as slide:
        assert (slide.info.mpp_x, slide.info.mpp_y) == (0.5, 0.25)
        assert slide.info.channels == ("0", "1")
        assert (slide.read(Region(3, 4, 150, 100)) == _PLANES[:, 4:, 3:]).all()


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4"])
def test_pixels_come_in_native_byte_order(tmp_path, dtype):
    _theirs(tmp_path / "a.zarr", _PLANES.astype(dtype), "cyx")
    (stored,) = (tmp_path / "a.zarr").glob("*/.zarray")
    assert json.loads(stored.read_text())["dtype"] == dtype
    with open_slide(SlideSpec(tmp_path / "a.zarr")) as slide:
        pixels = slide.read(Region(3, 4, 150, 100))
        assert slide.info.dtype == np.dtype(dtype).name
    assert pixels.dtype.isnative
    assert pixels.dtype == slide.info.dtype
    assert (pixels == _PLANES[:, 4:, 3:]).all()


@pytest.mark.parametrize("dtype", ["uint64", "int64", ">i8", "complex64", "bool"])
def test_pixels_that_cannot_be_warped_are_refused_at_open(tmp_path, dtype):
    _theirs(tmp_path / "a.zarr", _PLANES.astype(dtype), "cyx")
    expected = rf"pixels of type {np.dtype(dtype).name} cannot be warped, only uint8, .*float64\. Export it as one"
    with pytest.raises(UnreadableSlideError, match=expected):
        open_slide(SlideSpec(tmp_path / "a.zarr"))


@pytest.mark.parametrize("dtype", PIXEL_TYPES)
def test_every_pixel_type_that_is_read_is_warped(tmp_path, dtype):
    pixels = (_PLANES[:1] % 100).astype(dtype)
    _theirs(tmp_path / "a.zarr", pixels, "cyx")
    with open_slide(SlideSpec(tmp_path / "a.zarr")) as slide:
        assert slide.info.dtype == dtype
        warped = warp_block(
            slide, Composite(), slide.info.grid(), Region(0, 0, 150, 100), WarpConfig(interpolation="nearest"), fill=0
        )
    assert warped.dtype == dtype
    assert (warped == pixels).all()


def test_two_axes_are_one_channel(tmp_path):
    _theirs(tmp_path / "a.zarr", _PLANES[0], "yx")
    with open_slide(SlideSpec(tmp_path / "a.zarr")) as slide:
        assert (slide.read(Region(3, 4, 150, 100)) == _PLANES[:1, 4:, 3:]).all()


def test_several_planes_and_no_unit_are_refused(tmp_path):
    _theirs(tmp_path / "z.zarr", _PLANES, "zyx")
    with pytest.raises(SlideError, match=r"axis z has 2 planes\. Export one"):
        open_slide(SlideSpec(tmp_path / "z.zarr"))
    _theirs(tmp_path / "u.zarr", _PLANES, "cyx", unit="")
    with pytest.raises(MissingPixelSizeError, match="fixed_mpp"):
        open_slide(SlideSpec(tmp_path / "u.zarr"))


def test_series_of_bioformats2raw(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    for index in range(2):
        _theirs(tmp_path / "a.zarr" / str(index), _PLANES[index], "yx")
    with open_slide(SlideSpec(tmp_path / "a.zarr", series=1)) as slide:
        assert (slide.read(Region(0, 0, 150, 100))[0] == _PLANES[1]).all()
    with pytest.raises(SlideError, match="no series 2"):
        open_slide(SlideSpec(tmp_path / "a.zarr", series=2))


def test_damaged_shards_and_metadata_are_one_line(tmp_path):
    _ours(tmp_path / "a.zarr")
    last = tmp_path / "a.zarr" / "0" / "c" / "0" / "1" / "2"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    with pytest.raises(UnreadableSlideError, match="level 0 cannot be read") as caught:
        open_slide(SlideSpec(tmp_path / "a.zarr"))
    assert "\n" not in str(caught.value)
    metadata = tmp_path / "a.zarr" / "zarr.json"
    attributes = json.loads(metadata.read_text())
    attributes["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "7"
    metadata.write_text(json.dumps(attributes))
    with pytest.raises(UnreadableSlideError, match="its metadata cannot be read"):
        open_slide(SlideSpec(tmp_path / "a.zarr"))
    metadata.write_text("{")
    with pytest.raises(UnreadableSlideError, match="its metadata cannot be read"):
        open_slide(SlideSpec(tmp_path / "a.zarr"))


def test_zarr_that_is_no_image(tmp_path):
    ZarrArray.create(tmp_path / "array", (1, 9, 9), "uint8", chunk=8, shard=8)
    zarr.open_group(tmp_path / "group", mode="w")
    for name in ("array", "group"):
        with pytest.raises(UnreadableSlideError, match="Zarr without multiscale images"):
            open_slide(SlideSpec(tmp_path / name))
