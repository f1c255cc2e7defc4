"""Opens a slide with the adapter that fits its content; names and suffixes are not looked at."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import tifffile

from comir_batch.core.errors import UnreadableSlideError
from comir_batch.core.passing import passing_errno
from comir_batch.io.czi_reader import CziReader
from comir_batch.io.image_reader import ImageReader
from comir_batch.io.ngff_reader import NgffReader, is_zarr
from comir_batch.io.openslide_reader import OpenSlideReader, is_vendor_scan
from comir_batch.io.slide_reader import damage_as_error
from comir_batch.io.tiff_reader import TiffReader, complaints_as_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from comir_batch.core.slide import PixelSource, SlideSpec
    from comir_batch.io.slide_reader import SlideReader

    _Adapter = Callable[[SlideSpec], SlideReader]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_CZI, _PNG, _JPEG = b"ZISRAWFILE", b"\x89PNG", b"\xff\xd8\xff"


def open_slide(spec: SlideSpec) -> SlideReader:
    """Open a slide and check that its end can be read.

    Parameters
    ----------
    spec : SlideSpec
        Path, series, channel and pixel size as the manifest gives them.

    Returns
    -------
    SlideReader
        Over OpenSlide (vendor scans), tifffile (OME-TIFF, ImageJ and plain TIFF), Zarr (OME-Zarr 0.4 and 0.5), an
        image decoder (PNG, JPEG) or pylibCZIrw (CZI); it pickles as its spec.

    Raises
    ------
    UnreadableSlideError
        If the file is missing, empty, damaged, cut short or no image that any adapter reads.
    MissingPixelSizeError
        If neither the file nor the spec has a pixel size.
    SlideError
        If the series or channel is not there, or there are several planes.
    """
    with damage_as_error(spec.path, "the file"):  # what an adapter did not foresee must not end a batch
        source = _adapter(spec.path)(spec)
    try:
        source.probe()
    except Exception:
        source.close()
        raise
    return source


class _Kept(threading.local):
    """The slide that a thread has kept open, with what it was opened by; another thread does not see it."""

    slide: tuple[object, SlideReader] | None = None


_KEPT = _Kept()


@contextmanager
def kept_slide(spec: SlideSpec) -> Iterator[PixelSource]:
    """Open a slide as `open_slide` does, and keep it open for the next call with the same spec in this thread.

    For tasks that read a slide block by block: opening one takes as long as reading a few blocks. A slide of which a
    file was replaced or changed meanwhile is opened anew; one that could not be read is not kept.
    """
    kept, _KEPT.slide = _KEPT.slide, None
    if kept is not None and kept[0] != (spec, _stamps(kept[1].files)):
        kept[1].close()
        kept = None
    if kept is None:
        before = _stamps((spec.path,))
        slide = open_slide(spec)
        kept = (spec, before + _stamps(slide.files[1:])), slide
    slide = kept[1]
    try:
        yield slide
    except BaseException:
        slide.close()
        raise
    if _KEPT.slide is not None:  # of a call within this one
        _KEPT.slide[1].close()
    _KEPT.slide = kept


def _stamps(paths: Iterable[Path]) -> tuple[object, ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> object:
    """Return what changes with a file; nothing equals that of a file which is not there."""
    try:
        status = path.stat()
    except OSError:
        return object()
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _adapter(path: Path) -> _Adapter:
    if path.is_dir():
        return _folder_adapter(path)
    try:
        start = _start(path)
    except OSError as error:
        if passing_errno(error):
            raise
        raise UnreadableSlideError(f"{path}: {error.strerror}. Check the path") from error
    if not start:
        raise UnreadableSlideError(f"{path}: the file is empty. Copy it again")
    if start.startswith(_TIFF):
        return _tiff_adapter(path)
    if start.startswith(_CZI):
        return CziReader
    if is_vendor_scan(str(path)):
        return OpenSlideReader  # before JPEG: a MIRAX index is one
    if start.startswith((_PNG, _JPEG)):
        return ImageReader
    raise UnreadableSlideError(f"{path}: not an image that comir-batch reads. Convert it to OME-TIFF or OME-Zarr")


def _folder_adapter(path: Path) -> _Adapter:
    if is_zarr(path):
        return NgffReader
    raise UnreadableSlideError(f"{path}: a folder that is no OME-Zarr image. Give the image file, or the .zarr folder")


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(16)


def _tiff_adapter(path: Path) -> _Adapter:
    """OpenSlide sees one level of an OME-TIFF pyramid, so it never gets one."""
    with damage_as_error(path, "its directory"), complaints_as_error(path), tifffile.TiffFile(path) as tiff:
        is_ome = bool(tiff.is_ome)
    return OpenSlideReader if not is_ome and is_vendor_scan(str(path)) else TiffReader
