"""PNG and JPEG: small images, decoded whole when they are opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
from PIL import Image

from comir_batch.core.errors import UnreadableSlideError
from comir_batch.io.pixel_size import from_resolution
from comir_batch.io.slide_reader import RGB, Headers, SlideReader, damage_as_error, flatten, require_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.core.slide import SlideSpec

LARGEST_SIDE = 16384
Image.MAX_IMAGE_PIXELS = LARGEST_SIDE**2  # our own limit is the one that users meet
_GREY = ("L", "I;16", "I;16B", "I")
_COLOUR = ("RGB", "RGBA")


class ImageReader(SlideReader):
    """A PNG (8 or 16 bit) or JPEG, grey or RGB; 8-bit RGB with alpha is laid over white.

    Raises
    ------
    UnreadableSlideError
        If it has more than 16384 pixels a side, is damaged, or is neither grey nor RGB.
    """

    def __init__(self, spec: SlideSpec) -> None:
        require_series(spec.path, spec.series, ["the image"])
        with damage_as_error(spec.path, "the image"):
            mpp = _require_usable(spec.path)
            self._image = _decode(spec.path)
        count, height, width = self._image.shape
        names = RGB if count == 3 else ("0",)
        super().__init__(spec, Headers(((width, height),), names, str(self._image.dtype), mpp, "image"))

    def _pixels(self, region: Region) -> NDArray[np.generic]:
        return self._image[self._first : self._last, *region.slices]

    def _release(self) -> None:
        del self._image


def _require_usable(path: Path) -> tuple[float, float] | None:
    """Check the headers and return the pixel size, if they have one."""
    with Image.open(path) as image:
        if max(image.size) > LARGEST_SIDE:
            raise UnreadableSlideError(
                f"{path}: {image.width} x {image.height} pixels are too many for PNG or JPEG, which are read whole "
                f"(limit {LARGEST_SIDE} a side). Convert it to OME-TIFF or OME-Zarr"
            )
        if image.mode not in _GREY + _COLOUR:
            raise UnreadableSlideError(f"{path}: colours of mode {image.mode}. Save it as grey or RGB")
        x, y = image.info.get("dpi", (0, 0))
        return from_resolution(float(x), float(y), "inch")


def _decode(path: Path) -> NDArray[np.generic]:
    """Decode to ``(C, Y, X)``: PNG without Pillow, which drops RGB to 8 bit; JPEG with it, as it notices a cut file."""
    with path.open("rb") as stream:
        is_png = stream.read(8) == b"\x89PNG\r\n\x1a\n"
    pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()) if is_png else Image.open(path))
    if pixels.ndim == 2:
        return pixels[np.newaxis]
    if pixels.shape[-1] == 4 and pixels.dtype == np.uint8:
        return flatten(pixels)
    if pixels.shape[-1] != 3:
        raise UnreadableSlideError(f"{path}: {pixels.shape[-1]} samples of {pixels.dtype}. Save it as grey or RGB")
    return np.moveaxis(pixels, -1, 0)
