import errno
import os
import pickle

import numpy as np
import pytest
import tifffile

from comir_batch.core.errors import MissingPixelSizeError, SlideError, UnreadableSlideError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.digest import slide_digest
from comir_batch.io.open import kept_slide, open_slide
from comir_batch.io.tiff_reader import TiffReader

_PLANES = np.random.default_rng(0).integers(0, 60_000, (3, 200, 300)).astype(np.uint16)
_OME = {
    "axes": "CYX",
    "PhysicalSizeX": 500,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.25,
    "Channel": {"Name": ["DAPI", "TRITC", "CY5"]},
}
_BOX = Region(5, 7, 300, 90)


def _ome(path, pixels=_PLANES, **more):
    metadata = _OME | more.pop("metadata", {})
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, photometric="minisblack", **more)
    return path


@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64), "compression": "zlib"}, {"rowsperstrip": 16}])
def test_ome_tiff_with_channels(tmp_path, layout):
    with open_slide(SlideSpec(_ome(tmp_path / "a.ome.tif", **layout))) as slide:
        info = slide.info
        assert (info.reader, info.channels, info.dtype) == ("tifffile", ("DAPI", "TRITC", "CY5"), "uint16")
        assert (info.mpp_x, info.mpp_y, info.photometric) == (0.5, 0.25, "dark")
        assert (slide.read(_BOX) == _PLANES[:, 7:90, 5:]).all()


@pytest.mark.parametrize("channel", ["TRITC", "1"])
def test_one_channel_by_name_or_index(tmp_path, channel):
    with open_slide(SlideSpec(_ome(tmp_path / "a.tif"), channel=channel, mpp=2.0)) as slide:
        assert (slide.info.channels, slide.info.mpp_x, slide.info.mpp_y) == (("TRITC",), 2.0, 2.0)
        again = pickle.loads(pickle.dumps(slide))  # noqa: S301
    with again:
        assert (again.read(_BOX) == _PLANES[1:2, 7:90, 5:]).all()


def test_unknown_channel_and_series_list_what_there_is(tmp_path):
    path = _ome(tmp_path / "a.tif")
    with pytest.raises(SlideError, match=r"no channel 'FITC'.*0: DAPI, 1: TRITC, 2: CY5"):
        open_slide(SlideSpec(path, channel="FITC"))
    with pytest.raises(SlideError, match=r"no series 3, .*0: .*CYX"):
        open_slide(SlideSpec(path, series=3))


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb_interleaved_and_planar(tmp_path, planar):
    rgb = _PLANES.astype(np.uint8)
    pixels = rgb if planar == "separate" else np.moveaxis(rgb, 0, -1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.ascontiguousarray(pixels),
        photometric="rgb",
        planarconfig=planar,
        tile=(64, 64),
        resolution=(40_000, 20_000),
        resolutionunit="CENTIMETER",
    )
    with open_slide(SlideSpec(tmp_path / "a.tif")) as slide:
        assert slide.info.is_rgb
        assert (slide.info.mpp_x, slide.info.mpp_y) == (0.25, 0.5)
        assert (slide.read(_BOX) == rgb[:, 7:90, 5:]).all()
    with open_slide(SlideSpec(tmp_path / "a.tif", channel="green")) as slide:
        assert (slide.read(_BOX) == rgb[1:2, 7:90, 5:]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("value", "photometric"), [(200, "brightfield"), (10, "dark")])
def test_bright_and_dark_rgb_are_told_by_their_pixels(tmp_path, value, photometric, dtype):
    pixels = np.full((3000, 2000, 3), value * (np.iinfo(dtype).max // 255), dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", tile=(256, 256))
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0)) as slide:
        assert slide.info.photometric == photometric


@pytest.mark.parametrize("photometric", ["brightfield", "dark"])
@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_the_manifest_s_word_on_bright_and_dark_counts(tmp_path, shape, photometric):
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", np.full(shape, 128, np.uint8), photometric=kind)
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0, photometric=photometric)) as slide:
        assert slide.info.photometric == photometric


@pytest.mark.parametrize("channel", ["", "red", "1"])
@pytest.mark.parametrize(
    ("colour", "photometric"), [((200, 10, 200), "dark"), ((10, 200, 10), "dark"), ((90, 80, 200), "brightfield")]
)
def test_bright_and_dark_do_not_depend_on_the_chosen_channel(tmp_path, colour, photometric, channel):
    tifffile.imwrite(tmp_path / "a.tif", np.full((40, 50, 3), colour, np.uint8), photometric="rgb")
    with open_slide(SlideSpec(tmp_path / "a.tif", channel=channel, mpp=1.0)) as slide:
        assert slide.info.photometric == photometric
        assert len(slide.info.channels) == (1 if channel else 3)
        assert slide.read(Region(0, 0, 1, 1)).shape == (1 if channel else 3, 1, 1)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(("kind", "stored"), [("unassalpha", (200, 100, 0)), ("assocalpha", (100, 50, 0))])
def test_alpha_is_laid_over_white_straight_or_premultiplied(tmp_path, kind, stored, planar):
    rgba = np.full((60, 50, 4), (*stored, 127), np.uint8)
    rgba[:20] = (200, 100, 0, 255)
    rgba[40:] = 0
    pixels = np.moveaxis(rgba, -1, 0).copy() if planar == "separate" else rgba
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar, extrasamples=[kind])
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0)) as slide:
        assert slide.info.is_rgb
        read = slide.read(Region(0, 0, 50, 60))
    for rows, colour in ((slice(20), (200, 100, 0)), (slice(20, 40), (228, 178, 128)), (slice(40, 60), (255,) * 3)):
        assert np.abs(np.moveaxis(read[:, rows], 0, -1).astype(int) - colour).max() <= 1


def test_premultiplied_colours_brighter_than_their_alpha_stay_white(tmp_path):
    rgba = np.full((4, 5, 4), (255, 255, 255, 100), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["assocalpha"])
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0)) as slide:
        assert (slide.read(Region(0, 0, 5, 4)) == 255).all()


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize(("colours", "dtype"), [(3, "uint16"), (3, "float32"), (1, "uint8")])
def test_alpha_of_other_pixels_is_dropped(tmp_path, colours, dtype, kind):
    pixels = np.moveaxis(np.resize(_PLANES, (colours + 1, 20, 30)), 0, -1).astype(dtype)
    photometric = "rgb" if colours == 3 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif", pixels.copy(), photometric=photometric, planarconfig="contig", extrasamples=[kind]
    )
    with open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0)) as slide:
        assert slide.info.channels == (("red", "green", "blue") if colours == 3 else ("0",))
        assert (slide.read(Region(0, 0, 30, 20)) == np.moveaxis(pixels, -1, 0)[:colours]).all()


def test_inverted_grey_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", _PLANES[0], photometric="miniswhite")
    with pytest.raises(UnreadableSlideError, match=r"0 is white\. Export it with 0 as black"):
        open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0))


def test_levels_are_measured_from_their_sizes(tmp_path):
    path, pixels = tmp_path / "a.ome.tif", _PLANES[:1]
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(pixels, subifds=1, metadata=_OME | {"Channel": {"Name": "DAPI"}})
        writer.write(np.ascontiguousarray(pixels[:, ::3, ::3]), subfiletype=1)
    with open_slide(SlideSpec(path)) as slide:
        assert [(lv.width, lv.height) for lv in slide.info.levels] == [(300, 200), (100, 67)]
        assert (slide.info.levels[1].downsample_x, slide.info.levels[1].downsample_y) == (3.0, 200 / 67)
        assert (slide.read(Region(1, 2, 100, 67, 1)) == pixels[:, ::3, ::3][:, 2:, 1:]).all()
        assert slide.info.grid(1).origin_x == 0.5


@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64), "compression": "zlib"}])
def test_big_endian_files_are_read_in_native_byte_order(tmp_path, layout):
    path = _ome(tmp_path / "a.tif", byteorder=">", **layout)
    with open_slide(SlideSpec(path)) as slide:
        pixels = slide.read(_BOX)
        assert slide.info.dtype == "uint16"
    assert pixels.dtype.isnative
    assert (pixels == _PLANES[:, 7:90, 5:]).all()


@pytest.mark.parametrize("dtype", ["uint64", "int64", "complex64", "bool"])
def test_pixels_that_cannot_be_warped_are_refused_at_open(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", _PLANES[0].astype(dtype), photometric="minisblack")
    with pytest.raises(UnreadableSlideError, match=rf"pixels of type {dtype} cannot be warped, only uint8, .*Export"):
        open_slide(SlideSpec(tmp_path / "a.tif", mpp=1.0))


def test_imagej_units(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", _PLANES, imagej=True, resolution=(4, 2), metadata={"axes": "CYX", "unit": "um"}
    )
    with open_slide(SlideSpec(tmp_path / "a.tif")) as slide:
        assert (slide.info.mpp_x, slide.info.mpp_y) == (0.25, 0.5)
        assert (slide.read(_BOX) == _PLANES[:, 7:90, 5:]).all()


@pytest.mark.parametrize("dpi", [1, 72, 96, 300])
def test_printing_resolutions_are_no_pixel_size(tmp_path, dpi):
    tifffile.imwrite(tmp_path / "a.tif", _PLANES[0], resolution=(dpi, dpi), resolutionunit="INCH")
    with pytest.raises(MissingPixelSizeError, match="fixed_mpp or moving_mpp"):
        open_slide(SlideSpec(tmp_path / "a.tif"))


def test_only_the_tiles_that_are_touched_are_decoded(tmp_path):
    path = _ome(tmp_path / "a.tif", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        where, size = page.dataoffsets[2], page.databytecounts[2]
    data = bytearray(path.read_bytes())
    data[where : where + size] = bytes(size)
    path.write_bytes(data)
    with open_slide(SlideSpec(path)) as slide:
        assert (slide.read(Region(0, 0, 128, 200)) == _PLANES[:, :, :128]).all()
        with pytest.raises(UnreadableSlideError, match="level 0 cannot be read"):
            slide.read(Region(0, 0, 300, 200))


@pytest.mark.parametrize("axis", ["Z", "T"])
def test_several_planes_are_refused_by_axis(tmp_path, axis):
    path = _ome(tmp_path / "a.ome.tif", metadata={"axes": f"{axis}YX", "Channel": {"Name": ["a"]}})
    with pytest.raises(SlideError, match=rf"axis {axis} has 3 planes\. Export one plane"):
        open_slide(SlideSpec(path))


def test_outside_and_closed(tmp_path):
    slide = open_slide(SlideSpec(_ome(tmp_path / "a.tif")))
    with pytest.raises(ValueError, match=r"x 0\.\.301, y 0\.\.10 \(level 0\).*x 0\.\.300, y 0\.\.200"):
        slide.read(Region(0, 0, 301, 10))
    with pytest.raises(ValueError, match="no level 1"):
        slide.read(Region(0, 0, 1, 1, 1))
    slide.close()
    slide.close()
    with pytest.raises(ValueError, match="closed"):
        slide.read(Region(0, 0, 1, 1))


@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64), "compression": "zlib"}])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_cut_files_are_recognised(tmp_path, layout, share):
    path = _ome(tmp_path / "a.ome.tif", **layout)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableSlideError, match="cut short") as caught:
        open_slide(SlideSpec(path))
    assert "\n" not in str(caught.value)


def _described(path, old, new):
    """An OME-TIFF in whose XML something is wrong."""
    _ome(path)
    text = tifffile.tiffcomment(path)
    assert old in text
    tifffile.tiffcomment(path, text.replace(old, new).encode())
    return path


@pytest.mark.parametrize("wrong", ["A & B", "</Pixels>"])
def test_broken_ome_xml_is_an_error_of_the_slide(tmp_path, wrong):
    path = _described(tmp_path / "a.ome.tif", "DAPI", wrong)
    with pytest.raises(UnreadableSlideError, match=r"a\.ome\.tif: its OME-XML is broken \(.* 1.*\)\. Export it again"):
        open_slide(SlideSpec(path))


@pytest.mark.parametrize("wrong", ["0,5", "half", ""])
def test_a_pixel_size_that_is_no_number_is_none(tmp_path, wrong):
    path = _described(tmp_path / "a.ome.tif", 'PhysicalSizeY="0.25"', f'PhysicalSizeY="{wrong}"')
    with pytest.raises(MissingPixelSizeError, match="fixed_mpp or moving_mpp"):
        open_slide(SlideSpec(path))
    with open_slide(SlideSpec(path, mpp=0.5)) as slide:
        assert slide.info.mpp_x == 0.5


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EMFILE])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_next_try_may_read_is_not_called_damage(tmp_path, monkeypatch, number, wrapped):
    def fails(self, region):  # noqa: ARG001
        cause = OSError(number, os.strerror(number))
        if wrapped:
            raise RuntimeError("cannot decode") from cause
        raise cause

    path = _ome(tmp_path / "a.ome.tif")
    monkeypatch.setattr(TiffReader, "_pixels", fails)
    with pytest.raises(OSError, match=r"a\.ome\.tif") as caught:
        open_slide(SlideSpec(path))
    assert caught.value.errno == number


def _two_files(folder, second):
    """An OME-TIFF whose channels lie in a file each; returns the path of the first."""
    names = ("urn:uuid:00000000-0000-0000-0000-00000000000", ("c0.ome.tif", "c1.ome.tif"))
    data = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{name}">{names[0]}{i}</UUID></TiffData>'
        for i, name in enumerate(names[1])
    )
    channels = "".join(f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1"/>' for i in range(2))
    for i, (name, plane) in enumerate(zip(names[1], (_PLANES[0], second), strict=True)):
        xml = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{names[0]}{i}">'
            '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeX="300" SizeY="200" SizeC="2" '
            'SizeZ="1" SizeT="1" Type="uint16" PhysicalSizeX="0.5" PhysicalSizeY="0.5">'
            f"{channels}{data}</Pixels></Image></OME>"
        )
        tifffile.imwrite(folder / name, plane, description=xml, metadata=None)
    return folder / "c0.ome.tif"


def test_all_files_of_an_ome_tiff_count(tmp_path):
    path = _two_files(tmp_path, _PLANES[1])
    seen = []
    for change in (lambda: None, lambda: _two_files(tmp_path, _PLANES[2])):
        first = path.read_bytes()
        stamp = path.stat()
        change()
        assert path.read_bytes() == first
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        with kept_slide(SlideSpec(path)) as slide:
            assert [file.name for file in slide.files] == ["c0.ome.tif", "c1.ome.tif"]
            seen.append((slide_digest(path, slide.files[1:]), slide.read(Region(0, 0, 300, 200))[1]))
    assert seen[0][0] != seen[1][0]
    assert (seen[0][1] == _PLANES[1]).all()
    assert (seen[1][1] == _PLANES[2]).all()
