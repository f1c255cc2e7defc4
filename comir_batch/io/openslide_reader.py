"""Vendor scans (NDPI, SVS, MRXS, SCN, BIF, ...) through OpenSlide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import openslide

from comir_batch.core.geometry import Region
from comir_batch.io.slide_reader import RGB, Headers, SlideReader, damage_as_error, flatten, require_series

if TYPE_CHECKING:
    from comir_batch.core.slide import SlideSpec

    _Slide = openslide.OpenSlide


class OpenSlideReader(SlideReader):
    """A scan that OpenSlide knows: 8-bit RGB, transparent pixels laid over the slide's background colour.

    Where a file names the bounds of its scanned part (MRXS, SCN), these are the slide, and the empty canvas around them
    is not: as in QuPath, whose coordinates begin there, too. Where a level's size does not divide level 0's, OpenSlide
    addresses it in whole level-0 pixels and interpolates: pixels of such a level lie up to half a level-0 pixel off,
    never more.

    NDPI stores fluorescence as RGB too and its headers do not say so: bright or dark is decided from the pixels of the
    smallest level (`SlideReader`).
    """

    def __init__(self, spec: SlideSpec) -> None:
        require_series(spec.path, spec.series, ["the scan"])
        with damage_as_error(spec.path, "its headers"):
            self._slide = openslide.OpenSlide(spec.path)
            properties = dict(self._slide.properties)
        self._scales = self._slide.level_downsamples
        colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "FFFFFF")
        red, green, blue = bytes.fromhex(colour)
        self._colour = (red, green, blue)
        self._origin, sizes = (0, 0), self._slide.level_dimensions
        bounds = _bounds(properties)
        if bounds is not None:
            self._origin = bounds.x0, bounds.y0
            sizes = tuple((max(int(bounds.width / d), 1), max(int(bounds.height / d), 1)) for d in self._scales)
        downsamples = () if bounds is None else self._scales
        super().__init__(spec, Headers(sizes, RGB, "uint8", _pixel_size(properties), "openslide", downsamples))

    def _pixels(self, region: Region) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        scale = self._scales[region.level]
        corner = self._origin[0] + round(region.x0 * scale), self._origin[1] + round(region.y0 * scale)
        image = self._slide.read_region(corner, region.level, (region.width, region.height))
        return flatten(np.asarray(image), self._colour)[self._first : self._last]

    def _release(self) -> None:
        self._slide.close()


def is_vendor_scan(path: str) -> bool:
    """Tell whether OpenSlide knows the vendor's format; plain tiled TIFF does not count."""
    return openslide.OpenSlide.detect_format(path) not in (None, "generic-tiff")


def _bounds(properties: dict[str, str]) -> Region | None:
    """Return the scanned part in pixels of level 0, where a file names it."""
    names = (openslide.PROPERTY_NAME_BOUNDS_X, openslide.PROPERTY_NAME_BOUNDS_Y)
    sizes = (openslide.PROPERTY_NAME_BOUNDS_WIDTH, openslide.PROPERTY_NAME_BOUNDS_HEIGHT)
    try:
        x, y, width, height = (int(properties[name]) for name in (*names, *sizes))
    except (KeyError, ValueError):
        return None
    return Region(x, y, x + width, y + height) if width > 0 and height > 0 else None


def _pixel_size(properties: dict[str, str]) -> tuple[float, float] | None:
    try:
        return float(properties[openslide.PROPERTY_NAME_MPP_X]), float(properties[openslide.PROPERTY_NAME_MPP_Y])
    except (KeyError, ValueError):
        return None
