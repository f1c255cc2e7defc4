import tracemalloc
from uuid import UUID

import numpy as np
import pytest
import tifffile
import tiffslide

from comir_batch.core.block import BlockPlan
from comir_batch.core.errors import ConfigError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.open import open_slide
from comir_batch.io.zarr_array import ZarrArray

_GRID = Grid(403, 250, 0.25, 0.5)


def _levels(folder, channels, dtype, *, grid=_GRID, count=3, chunk=32):
    arrays, images = [], []
    for index in range(count):
        level = grid.reduced(2**index)
        y, x = np.mgrid[: level.height, : level.width] * 2**index
        image = np.stack([(x / 4 + y / 4 + 20 * c) % 200 for c in range(channels)]).astype(dtype)
        array = ZarrArray.create(folder / str(index), image.shape, dtype, chunk=chunk, shard=2 * chunk)
        for region in BlockPlan(level.width, level.height, 2 * chunk):
            array.write(region, image[:, *region.slices])
        arrays.append(array)
        images.append(image)
    return arrays, images


def _write(folder, out, channels, dtype, compression="deflate", *, is_rgb=False, **layout):
    arrays, images = _levels(folder, len(channels), dtype, **layout)
    write_ome_tiff(arrays, out, TiffImage("pair 1", _GRID, tuple(channels), is_rgb), compression)
    return images


@pytest.mark.parametrize("compression", ["deflate", "zstd", "none"])
@pytest.mark.parametrize(
    ("channels", "dtype", "is_rgb"),
    [(("red", "green", "blue"), "uint8", True), (("DAPI", "TRITC"), "uint16", False), (("a",), "float32", False)],
)
def test_tifffile_sees_every_level_losslessly(tmp_path, channels, dtype, is_rgb, compression):
    out = tmp_path / "aligned µ.ome.tif"
    images = _write(tmp_path / "z", out, channels, dtype, compression, is_rgb=is_rgb)
    with tifffile.TiffFile(out) as tiff:
        assert tiff.is_ome
        assert not tiff.is_bigtiff
        (series,) = tiff.series
        assert len(series.levels) == 3
        for level, image in zip(series.levels, images, strict=True):
            pixels = level.asarray()
            assert (np.moveaxis(pixels, -1, 0) == image if is_rgb else pixels.reshape(image.shape) == image).all()
            x, y = (level.keyframe.tags[tag].value for tag in ("XResolution", "YResolution"))
            assert x[0] / x[1] == pytest.approx(40_000 * image.shape[2] / 403, rel=1e-5)
            assert y[0] / y[1] == pytest.approx(20_000 * image.shape[1] / 250, rel=1e-5)
        assert len(tiff.pages) == (1 if is_rgb else len(channels))
        assert 'PhysicalSizeX="0.25"' in tiff.ome_metadata
    assert [p.name for p in tmp_path.glob("*.tif*")] == [out.name]


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_tiffslide_sees_every_level_and_the_pixel_size(tmp_path, compression):
    out = tmp_path / "aligned.ome.tif"
    images = _write(tmp_path / "z", out, ("red", "green", "blue"), "uint8", compression, is_rgb=True, chunk=64)
    with tiffslide.TiffSlide(out) as slide:
        assert slide.level_count == 3
        assert slide.level_dimensions == tuple((image.shape[2], image.shape[1]) for image in images)
        assert float(slide.properties["tiffslide.mpp-x"]) == pytest.approx(0.25)
        assert float(slide.properties["tiffslide.mpp-y"]) == pytest.approx(0.5)
        pixels = np.asarray(slide.read_region((0, 0), 1, slide.level_dimensions[1]))[..., :3].astype(int)
    difference = np.abs(pixels - np.moveaxis(images[1], 0, -1))
    assert np.median(difference) <= (2 if compression == "jpeg" else 0)


@pytest.mark.parametrize(
    ("channels", "is_rgb"), [(("red", "green", "blue"), True), (("DAPI", "TRITC", "CY5"), False), (("only",), False)]
)
def test_our_reader_reads_back_what_was_written(tmp_path, channels, is_rgb):
    out = tmp_path / "x.ome.tif"
    images = _write(tmp_path / "z", out, channels, "uint8", is_rgb=is_rgb)
    with open_slide(SlideSpec(out)) as slide:
        assert slide.info.reader == "tifffile"
        assert slide.info.channels == (channels if len(channels) > 1 else ("only",))
        assert (slide.info.mpp_x, slide.info.mpp_y) == (0.25, 0.5)
        for index, image in enumerate(images):
            region = Region(3, 5, image.shape[2], image.shape[1], index)
            assert (slide.read(region) == image[:, 5:, 3:]).all()


def test_half_floats_are_stored_as_float32(tmp_path):
    out = tmp_path / "x.ome.tif"
    images = _write(tmp_path / "z", out, ("a", "b"), "float16")
    with open_slide(SlideSpec(out)) as slide:
        assert slide.info.dtype == "float32"
        for index, image in enumerate(images):
            assert (slide.read(Region(0, 0, image.shape[2], image.shape[1], index)) == image).all()


def test_jpeg_of_16_bit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"8-bit pixels, not uint16\. Set tiff_compression"):
        _write(tmp_path / "z", tmp_path / "x.ome.tif", ("a",), "uint16", "jpeg")
    assert not list(tmp_path.glob("*.tif"))


def test_memory_does_not_grow_with_the_image(tmp_path):
    def peak(side):
        array = ZarrArray.create(tmp_path / str(side), (3, side, side), "uint8", chunk=256, shard=512)
        grid = Grid(side, side, 1.0, 1.0)
        out = tmp_path / f"{side}.ome.tif"
        tracemalloc.start()
        write_ome_tiff([array], out, TiffImage("x", grid, ("r", "g", "b")), "zstd")
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return high

    peak(512)
    assert peak(4096) < 3 * peak(2048)
    assert peak(4096) < 30e6


def test_a_file_with_a_given_identifier_is_the_same_to_the_byte(tmp_path):
    arrays, _ = _levels(tmp_path / "levels", 2, "uint8")
    for name, uuid in (("first", UUID(int=7)), ("second", UUID(int=7)), ("another", None)):
        image = TiffImage("pair 1", _GRID, ("a", "b"), uuid=uuid)
        write_ome_tiff(arrays, tmp_path / f"{name}.ome.tif", image, "deflate")
    first, second, another = ((tmp_path / f"{n}.ome.tif").read_bytes() for n in ("first", "second", "another"))
    assert first == second != another
    with tifffile.TiffFile(tmp_path / "first.ome.tif") as tif:
        assert f'UUID="{UUID(int=7).urn}"' in tif.ome_metadata
