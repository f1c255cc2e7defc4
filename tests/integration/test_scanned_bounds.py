"""A Leica scan whose canvas is larger than what was scanned: the scanned part is the slide, as in QuPath."""

import numpy as np
import pytest
import tifffile

from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide

CANVAS, SCANNED, CORNER, MPP = (2048, 1536), (1000, 768), (301, 202), 0.5

IMAGE = """<image name="{name}" uuid="urn:uuid:{name}"><device model="a" version="1"/><pixels sizeX="{sizes[0]}"
 sizeY="{sizes[1]}">{dimensions}</pixels><view sizeX="{view[0]}" sizeY="{view[1]}" offsetX="{corner[0]}"
 offsetY="{corner[1]}" spacingZ="0"/><scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>
</illuminationSettings></scanSettings></image>"""


def _nanometres(pixels):
    return tuple(round(side * MPP * 1000) for side in pixels)


def _image(name, sizes, canvas_pixels, corner, directories):
    dimensions = "".join(
        f'<dimension sizeX="{sizes[0] // d}" sizeY="{sizes[1] // d}" r="{r}" ifd="{ifd}"/>'
        for r, (ifd, d) in enumerate(directories)
    )
    view = _nanometres(canvas_pixels)
    return IMAGE.format(name=name, sizes=sizes, dimensions=dimensions, view=view, corner=_nanometres(corner))


@pytest.fixture(scope="module")
def pixels():
    """Return ``(Y, X, 3)`` pixels in flat squares, which JPEG hardly changes."""
    width, height = SCANNED
    squares = np.random.default_rng(0).integers(90, 255, (height // 32, width // 32 + 1, 3))
    return np.kron(squares, np.ones((32, 32, 1))).astype(np.uint8)[:, :width]


@pytest.fixture(scope="module")
def scn(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("scn") / "scan.scn"
    collection = _nanometres(CANVAS)
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="urn:uuid:c" sizeX="{collection[0]}" sizeY="{collection[1]}">'
        f"{_image('macro', (128, 96), CANVAS, (0, 0), [(0, 1)])}"
        f"{_image('scan', SCANNED, SCANNED, CORNER, [(1, 1), (2, 4)])}</collection></scn>"
    )
    how = {"photometric": "rgb", "metadata": None, "compression": "jpeg", "compressionargs": {"level": 98}}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(np.full((96, 128, 3), 200, np.uint8), tile=(64, 64), description=text.encode(), **how)
        file.write(pixels, tile=(256, 256), **how)
        file.write(np.ascontiguousarray(pixels[2::4, 2::4]), tile=(256, 256), subfiletype=1, **how)
    return path


def test_the_slide_is_what_was_scanned(scn, pixels):
    with open_slide(SlideSpec(scn, mpp=MPP)) as slide:
        info = slide.info
        assert (info.reader, info.photometric) == ("openslide", "brightfield")
        assert [(level.width, level.height, level.downsample_x) for level in info.levels] == [
            (1000, 768, 1.0),
            (250, 192, 4.0),
        ]
        whole = slide.read(Region(0, 0, *SCANNED))
        part = slide.read(Region(700, 500, 1000, 768))
    assert np.abs(whole - np.moveaxis(pixels, -1, 0).astype(float)).mean() < 2
    np.testing.assert_array_equal(part, whole[:, 500:768, 700:1000])


def test_coarser_levels_lie_on_the_finest(scn, pixels):
    with open_slide(SlideSpec(scn, mpp=MPP)) as slide:
        coarse = slide.read(Region(0, 0, 250, 192, 1)).astype(float)
        slide.probe()
    expected = np.moveaxis(pixels[2::4, 2::4], -1, 0)
    assert np.median(np.abs(coarse - expected)) < 4  # between squares OpenSlide interpolates
