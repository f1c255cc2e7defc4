import numpy as np
import pytest
from PIL import Image

from comir_batch.core.errors import MissingPixelSizeError, UnreadableSlideError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io import image_reader
from comir_batch.io.open import open_slide

_RGB = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)


@pytest.mark.parametrize("pixels", [_RGB, _RGB[..., 0], _RGB[..., 0].astype(np.uint16) * 200])
def test_png(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.dat", "png")
    with open_slide(SlideSpec(tmp_path / "a.dat", mpp=2.0)) as slide:
        read = slide.read(Region(3, 4, 60, 40))
        assert (slide.info.dtype, slide.info.is_rgb) == (str(pixels.dtype), pixels.ndim == 3)
    expected = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    assert (read == expected[:, 4:, 3:]).all()
    assert read.flags.c_contiguous


def test_alpha_is_laid_over_white(tmp_path):
    alpha = np.zeros((40, 60, 1), np.uint8)
    alpha[:20] = 255
    Image.fromarray(np.concatenate([_RGB, alpha], -1)).save(tmp_path / "a.png")
    with open_slide(SlideSpec(tmp_path / "a.png", mpp=2.0)) as slide:
        read = slide.read(Region(0, 0, 60, 40))
    assert (read[:, :20] == np.moveaxis(_RGB, -1, 0)[:, :20]).all()
    assert (read[:, 20:] == 255).all()


def test_jpeg_and_its_resolution(tmp_path):
    Image.fromarray(_RGB).save(tmp_path / "a.jpg", dpi=(50800, 50800))
    with open_slide(SlideSpec(tmp_path / "a.jpg")) as slide:
        assert slide.info.mpp_x == pytest.approx(0.5)
    Image.fromarray(_RGB).save(tmp_path / "b.jpg", dpi=(300, 300))
    with pytest.raises(MissingPixelSizeError):
        open_slide(SlideSpec(tmp_path / "b.jpg"))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_cut_image_is_damaged(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(_RGB).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableSlideError, match="damaged or cut short"):
        open_slide(SlideSpec(path, mpp=1.0))


def test_large_images_and_palettes_are_refused_with_what_to_do(tmp_path, monkeypatch):
    Image.fromarray(_RGB).quantize(8).save(tmp_path / "p.png")
    with pytest.raises(UnreadableSlideError, match=r"mode P\. Save it as grey or RGB"):
        open_slide(SlideSpec(tmp_path / "p.png", mpp=1.0))
    monkeypatch.setattr(image_reader, "LARGEST_SIDE", 50)
    Image.fromarray(_RGB).save(tmp_path / "l.png")
    with pytest.raises(UnreadableSlideError, match=r"60 x 40 pixels are too many .*Convert it to OME-TIFF"):
        open_slide(SlideSpec(tmp_path / "l.png", mpp=1.0))
