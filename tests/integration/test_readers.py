"""Vendor files, as scanners wrote them, and the errors that damaged ones must give."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from comir_batch.core.errors import MissingPixelSizeError, SlideError, UnreadableSlideError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import PixelSource, SlideSpec
from comir_batch.io.open import open_slide


@pytest.fixture
def svs(shared_data):
    return shared_data / "slides" / "aperio_svs_cmu1_small_region" / "CMU-1-Small-Region.svs"


@pytest.fixture
def svs_jpeg2000(shared_data):
    return shared_data / "slides" / "aperio_svs_tcga_cr_7395" / "tcga-cr-7395-01a-01-ts1.svs"


@pytest.fixture
def czi(shared_data):
    return shared_data / "slides" / "zeiss_czi" / "mosaic_test.czi"


def _one_line(path, kind=UnreadableSlideError, **more):
    with pytest.raises(kind) as caught:
        open_slide(SlideSpec(path, **more))
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert ". " in message.removeprefix(str(path)), "the remedy is the last sentence"
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_ndpi_fluorescence_is_dark_and_has_seven_levels(ndpi_pair):
    for path in ndpi_pair:
        with open_slide(SlideSpec(path)) as slide:
            info = slide.info
            assert isinstance(slide, PixelSource)
            assert (info.reader, info.photometric, info.is_rgb, info.dtype) == ("openslide", "dark", True, "uint8")
            assert info.mpp_x == pytest.approx(0.228175, abs=1e-6)
            assert [(lv.width, lv.downsample_x) for lv in info.levels] == [(3968 >> k, 2.0**k) for k in range(7)]
            assert info.grid(3).origin_x == pytest.approx(3.5 * info.mpp_x)


def test_ndpi_regions_are_cut_from_the_whole(ndpi_pair):
    with open_slide(SlideSpec(ndpi_pair[1])) as slide:
        whole = slide.read(Region(0, 0, 992, 1216, 2))
        part = pickle.loads(pickle.dumps(slide)).read(Region(101, 203, 505, 1216, 2))  # noqa: S301
    assert (part == whole[:, 203:, 101:505]).all()
    assert part.flags.c_contiguous


def test_one_colour_of_an_ndpi(ndpi_pair):
    with open_slide(SlideSpec(ndpi_pair[1], channel="red")) as red, open_slide(SlideSpec(ndpi_pair[1])) as rgb:
        region = Region(10, 20, 60, 70, 4)
        assert red.info.channels == ("red",)
        assert (red.read(region) == rgb.read(region)[:1]).all()


def test_svs_is_brightfield_and_agrees_with_another_decoder(svs):
    with open_slide(SlideSpec(svs)) as slide:
        assert (slide.info.photometric, slide.info.mpp_x) == ("brightfield", 0.499)
        pixels = slide.read(Region(1000, 1500, 1600, 2100))
    expected = np.moveaxis(tifffile.imread(svs)[1500:2100, 1000:1600], -1, 0)
    assert (pixels == expected).mean() > 0.99
    assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_svs_without_pixel_size_needs_the_manifest(svs_jpeg2000):
    message = _one_line(svs_jpeg2000, MissingPixelSizeError)
    assert "fixed_mpp or moving_mpp" in message


def test_jpeg2000_decodes(svs_jpeg2000):
    with open_slide(SlideSpec(svs_jpeg2000, mpp=0.5)) as slide:
        pixels = slide.read(Region(2000, 1500, 2300, 1700))
        level = slide.info.levels[1]
        coarse = slide.read(Region(700, 500, 1000, 700, 1))
    assert (level.downsample_x, level.downsample_y) == (4443 / 2221, 3567 / 1783)
    with tifffile.TiffFile(svs_jpeg2000) as tiff:
        whole, half = (level.asarray() for level in tiff.series[0].levels)
    assert (pixels == np.moveaxis(whole[1500:1700, 2000:2300], -1, 0)).all()
    # OpenSlide addresses level 1 in level-0 pixels and interpolates: up to half a level-0 pixel off.
    assert np.abs(coarse.astype(int) - np.moveaxis(half[500:700, 700:1000], -1, 0)).mean() < 6


def test_czi_mosaic(czi):
    with open_slide(SlideSpec(czi)) as slide:
        assert (slide.info.reader, slide.info.channels, slide.info.dtype) == ("czi", ("EGFP",), "uint16")
        assert (slide.info.levels[0].width, slide.info.levels[0].height) == (1756, 624)
        assert slide.info.mpp_x == pytest.approx(13 / 12)
        whole = slide.read(Region(0, 0, 1756, 624))
        assert (slide.read(Region(900, 100, 1756, 624)) == whole[:, 100:, 900:]).all()
        coarse = slide.read(Region(0, 0, 878, 312, 1)).astype(float)
    blocks = whole[0].astype(float).reshape(312, 2, 878, 2).mean((1, 3))
    assert np.corrcoef(coarse.ravel(), blocks.ravel())[0, 1] > 0.95


def test_czi_without_the_extra_names_it(czi, monkeypatch):
    monkeypatch.setitem(sys.modules, "pylibCZIrw.czi", None)
    assert "pip install 'comir-batch[czi]'" in _one_line(czi)


def test_ome_tiff_with_z_names_the_axis(shared_data):
    message = _one_line(shared_data / "slides" / "ome_tiff_artificial" / "multi-channel-z-series.ome.tif", SlideError)
    assert "axis Z has 5 planes" in message


def test_geotiff_pyramid_with_six_bands(shared_data):
    with open_slide(SlideSpec(shared_data / "rgb_nir" / "landsat7" / "L7_ETMs.tif", mpp=30.0)) as slide:
        assert [lv.width for lv in slide.info.levels] == [349, 175, 88, 44, 22]
        assert slide.read(Region(0, 0, 88, 88, 2)).shape == (6, 88, 88)


def test_widefield_png_is_16_bit(shared_data):
    path = shared_data / "phase_fluorescence" / "widefield" / "dapi_widefield.png"
    with open_slide(SlideSpec(path, mpp=0.3)) as slide:
        assert (slide.info.dtype, slide.info.levels[0].width, slide.info.photometric) == ("uint16", 2882, "dark")


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_cut_scans_are_recognised(ndpi_pair, svs, czi, tmp_path, share):
    ends_with_attachments = [czi] if share < 0.99 else []
    for path in (*ndpi_pair, svs, *ends_with_attachments):
        cut = tmp_path / path.name
        cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        assert "cut short" in _one_line(cut)


def test_what_is_no_slide(tmp_path):
    (tmp_path / "empty.ndpi").touch()
    (tmp_path / "text.ndpi").write_text("no slide at all\n" * 99)
    (tmp_path / "folder.zarr").mkdir()
    assert "empty" in _one_line(tmp_path / "empty.ndpi")
    assert "not an image" in _one_line(tmp_path / "text.ndpi")
    assert "no OME-Zarr" in _one_line(tmp_path / "folder.zarr")
    assert "No such file" in _one_line(tmp_path / "missing.svs")


def test_series_that_a_scan_has_not(ndpi_pair):
    assert "no series 1" in _one_line(ndpi_pair[0], SlideError, series=1)


def test_damage_is_told_apart_between_threads(ndpi_pair, svs, tmp_path):
    cut = tmp_path / "cut.ndpi"
    cut.write_bytes(ndpi_pair[0].read_bytes()[:2_000_000])

    def opens(path):
        try:
            open_slide(SlideSpec(path)).close()
        except UnreadableSlideError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(opens, [cut, svs, ndpi_pair[0], cut] * 8)) == [False, True, True, False] * 8
