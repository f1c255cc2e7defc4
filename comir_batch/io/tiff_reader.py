"""OME-TIFF, ImageJ and plain TIFF through tifffile, any dtype and number of channels; tiles are decoded as needed."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

import numpy as np
import tifffile
import zarr

from comir_batch.core.errors import SlideError, UnreadableSlideError
from comir_batch.io.slide_reader import RGB, Headers, SlideReader, damage_as_error, flatten, require_series
from comir_batch.io.tiff_metadata import channel_names, pixel_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.core.slide import SlideSpec

_COLOUR = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


class TiffReader(SlideReader):
    """One series of a TIFF file with its pyramid, as SubIFDs or as pages.

    Channels lie along C (planes) or S (samples, interleaved or planar). Alpha is no channel: 8-bit RGB is laid over
    white by it, straight or premultiplied as the file says; of other pixels it is dropped.

    Raises
    ------
    SlideError
        If an axis other than C, S, Y and X has several planes, or there is no such series.
    UnreadableSlideError
        If the file is damaged, or its pixels are palette indices, inverted or of a type that cannot be warped.
    """

    def __init__(self, spec: SlideSpec) -> None:
        with damage_as_error(spec.path, "its directory"), complaints_as_error(spec.path):
            self._file = tifffile.TiffFile(spec.path)
            listed = list(self._file.series)
            require_series(spec.path, spec.series, [f"{s.name or 'image'} {s.axes} {s.shape}" for s in listed])
            series = listed[spec.series]
            headers = _headers(self._file, spec)  # first: where its XML is broken, tifffile guesses the axes
            _require_usable(spec.path, series)
            self._others = _other_files(self._file, series)
        self._axes = series.axes
        self._alpha = _alpha(series)
        self._levels = [zarr.open_array(series.aszarr(level=index), mode="r") for index in range(len(series.levels))]
        super().__init__(spec, headers)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the others of an OME-TIFF of several files."""
        return (self.spec.path, *self._others)

    def _pixels(self, region: Region) -> NDArray[np.generic]:
        wanted: dict[str, slice] = dict(zip("YX", region.slices, strict=True))
        wanted |= {"C": slice(self._first, self._last), "S": slice(None)}
        index = tuple(wanted.get(axis, 0) for axis in self._axes)
        raw = np.asarray(self._levels[region.level][index])
        axes = [axis for axis in self._axes if axis in wanted]
        if "C" in axes:
            return np.moveaxis(raw, axes.index("C"), 0)
        if "S" not in axes:
            return raw[np.newaxis]
        samples = np.moveaxis(raw, axes.index("S"), -1)
        return self._without_alpha(samples)[self._first : self._last]

    def _without_alpha(self, samples: NDArray[Any]) -> NDArray[np.generic]:
        """Return ``(Y, X, S)`` samples as channels; an alpha that is not flattened lies behind the last of them."""
        if self._alpha is None or samples.dtype != np.uint8 or samples.shape[-1] != 4:
            return np.moveaxis(samples, -1, 0)
        return flatten(samples, premultiplied=self._alpha == tifffile.EXTRASAMPLE.ASSOCALPHA)

    def _release(self) -> None:
        self._file.close()


class _Complaints(logging.Handler):
    """Keeps what tifffile logs in a thread, because beyond the log it goes on with what it could read."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(self.heard, "messages"):
            self.heard.messages.append(record.getMessage())


_COMPLAINTS = _Complaints()
logging.getLogger("tifffile").addHandler(_COMPLAINTS)
logging.getLogger("tifffile").propagate = False


@contextmanager
def complaints_as_error(path: Path) -> Iterator[None]:
    """Raise UnreadableSlideError where tifffile only logs that an offset points behind the end of the file."""
    messages: list[str] = []
    _COMPLAINTS.heard.messages = messages
    try:
        yield
    finally:
        if any("offset" in message for message in messages):
            raise UnreadableSlideError(
                f"{path}: its directory points behind the end of the file; it is damaged or cut short. Copy it again"
            )


def _require_usable(path: Path, series: tifffile.TiffPageSeries) -> None:
    for axis, size in zip(series.axes, series.shape, strict=True):
        if axis not in "CSYX" and size > 1:
            raise SlideError(f"{path}: axis {axis} has {size} planes. Export one plane, or their projection")
    if "C" in series.axes and "S" in series.axes:
        raise SlideError(f"{path}: {series.shape[series.axes.index('C')]} RGB images along axis C. Export one of them")
    if series.dtype is None:
        raise UnreadableSlideError(f"{path}: pixels of a type that numpy has not. Export it as 8 or 16 bit or float")
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
        raise UnreadableSlideError(f"{path}: its colours are a palette. Export it as RGB or grey")
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise UnreadableSlideError(f"{path}: its grey values are inverted, 0 is white. Export it with 0 as black")
    for index, level in enumerate(series.levels):
        _require_whole(path, index, level)


def _require_whole(path: Path, index: int, level: Any) -> None:
    for page in level.pages:
        if page is None:
            raise UnreadableSlideError(f"{path}: a plane of level {index} is missing. Export the image again")
        end = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        size = page.parent.filehandle.size
        if end > size:
            raise UnreadableSlideError(
                f"{path}: level {index} needs {end} bytes but the file has {size}; it is cut short. Copy it again"
            )


def _headers(tiff: tifffile.TiffFile, spec: SlideSpec) -> Headers:
    index, series = spec.series, tiff.series[spec.series]
    sizes = tuple((_size(level, "X"), _size(level, "Y")) for level in series.levels)
    count = _size(series, "C") * _size(series, "S") - (_alpha(series) is not None)
    try:
        names, mpp = channel_names(tiff, index, count), pixel_size(tiff, index)
    except ParseError as error:
        raise UnreadableSlideError(f"{spec.path}: its OME-XML is broken ({error}). Export it again") from error
    if "S" in series.axes and series.keyframe.photometric in _COLOUR:
        names = RGB + tuple(str(i) for i in range(3, count))
    return Headers(sizes, names, str(series.dtype), mpp, "tifffile")


def _other_files(tiff: tifffile.TiffFile, series: Any) -> tuple[Path, ...]:
    pages = (page for level in series.levels for page in level.pages if page.parent is not tiff)
    return tuple(dict.fromkeys(Path(page.parent.filehandle.path) for page in pages))


def _size(series: Any, axis: str) -> int:
    return int(series.shape[series.axes.index(axis)]) if axis in series.axes else 1


def _alpha(series: tifffile.TiffPageSeries) -> tifffile.EXTRASAMPLE | None:
    """Return the kind of alpha that the last sample of a grey or RGB image is."""
    page = series.keyframe
    colours = 3 if page.photometric in _COLOUR else 1
    if _size(series, "S") != colours + 1 or not page.extrasamples or page.extrasamples[0] not in _ALPHA:
        return None
    return tifffile.EXTRASAMPLE(page.extrasamples[0])
