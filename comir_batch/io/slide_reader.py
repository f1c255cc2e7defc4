"""What all slide readers share: levels measured from sizes, pixel size, choice of channels, checks and plain errors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Self

import numpy as np

from comir_batch.core.errors import ComirBatchError, MissingPixelSizeError, SlideError, UnreadableSlideError
from comir_batch.core.geometry import Region
from comir_batch.core.passing import passing_errno
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.io.boxes import require_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.slide import Photometric, SlideSpec

RGB = ("red", "green", "blue")
PIXEL_TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")
_TOLD_BY_PIXELS = ("uint8", "uint16")  # RGB of these types is told bright from dark by its pixels
_DARK_BELOW = 64  # of 255


@dataclass(frozen=True, slots=True)
class Headers:
    """What an adapter found in a file, before the manifest's wishes are heard.

    Attributes
    ----------
    sizes : tuple of (int, int)
        Width and height of each level, the finest first.
    channels : tuple of str
        Names of all channels.
    dtype : str
        Numpy name, in whatever byte order the file has.
    mpp : (float, float) or None
        Pixel size along x and y in µm, if the file has one.
    reader : str
        Name of the adapter.
    downsamples : tuple of float
        Exact downsamples where the adapter itself makes the levels; empty to measure them from the sizes.
    """

    sizes: tuple[tuple[int, int], ...]
    channels: tuple[str, ...]
    dtype: str
    mpp: tuple[float, float] | None
    reader: str
    downsamples: tuple[float, ...] = ()


class SlideReader(ABC):
    """A `PixelSource` over one open file; pickles as its spec and opens the file again on the other side.

    Subclasses open the file, call this constructor with what they found, and read the pixels of the channels
    ``self._first`` up to ``self._last`` (exclusive).

    Raises
    ------
    MissingPixelSizeError
        If neither file nor spec has a pixel size.
    SlideError
        If the channel that the spec names is not there.
    UnreadableSlideError
        If the pixels are of a type that cannot be warped: none of `PIXEL_TYPES`.
    """

    def __init__(self, spec: SlideSpec, headers: Headers) -> None:
        self.spec = spec
        self._closed = False
        try:
            self._info = self._described(headers)
        except Exception:
            self.close()
            raise

    def _described(self, headers: Headers) -> SlideInfo:
        spec = self.spec
        dtype = _pixel_type(spec.path, headers.dtype)
        first, last = _chosen(spec, headers.channels)
        names, levels, mpp = headers.channels[first:last], _levels(headers), _pixel_size(spec, headers)
        self._first, self._last = 0, len(headers.channels)
        told = headers.channels == RGB and dtype in _TOLD_BY_PIXELS
        photometric = spec.photometric or (self._background(levels, dtype) if told else "dark")
        self._first, self._last = first, last
        return SlideInfo(levels, names, dtype, *mpp, photometric, headers.reader)

    @property
    def info(self) -> SlideInfo:
        """Headers of the slide as the spec asks for it."""
        return self._info

    @property
    def files(self) -> tuple[Path, ...]:
        """Where the pixels lie: the spec's path, and other files that belong to the slide."""
        return (self.spec.path,)

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the pixels of a region of its level, ``(C, Y, X)``, C-contiguous, in native byte order.

        Raises
        ------
        ValueError
            If the region leaves its level, there is no such level, or the slide was closed.
        UnreadableSlideError
            If the pixels cannot be decoded.
        """
        if self._closed:
            raise ValueError(f"{self.spec.path} is closed")
        if region.level >= len(self._info.levels):
            raise ValueError(f"{self.spec.path} has {len(self._info.levels)} levels, no level {region.level}")
        level = self._info.levels[region.level]
        require_inside(region, level.width, level.height)
        with damage_as_error(self.spec.path, f"its level {region.level}"):
            pixels = self._pixels(region)
            return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))

    def probe(self) -> None:
        """Decode the last pixel of each level, which a file cut short has not; raises UnreadableSlideError."""
        for index, level in enumerate(self._info.levels):
            self.read(Region(level.width - 1, level.height - 1, level.width, level.height, index))

    def close(self) -> None:
        """Release the file; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[SlideSpec], Self], tuple[SlideSpec]]:
        return type(self), (self.spec,)

    @abstractmethod
    def _pixels(self, region: Region) -> NDArray[np.generic]:
        """Read ``(C, Y, X)`` pixels of the chosen channels; the region is known to lie inside."""

    @abstractmethod
    def _release(self) -> None:
        """Close the file."""

    def _background(self, levels: tuple[Level, ...], dtype: str) -> Photometric:
        """Tell bright from dark slides by their pixels, because both are stored as RGB in the same formats.

        In a transmission scan the darkest of the three colours is still bright in most pixels; in fluorescence one
        colour at least is nearly black. Decides on the median over samples of the smallest level, and needs all three
        colours: one chosen channel cannot tell.
        """
        index, level = len(levels) - 1, levels[-1]
        with damage_as_error(self.spec.path, f"its level {index}"):
            # min(axis=0) is slow where colours are interleaved, and took a quarter of the time that opening takes.
            samples = [
                reduce(np.minimum, self._pixels(box)).ravel() for box in _samples(level.width, level.height, index)
            ]
        darkest = _DARK_BELOW * np.iinfo(dtype).max / 255
        return "dark" if np.median(np.concatenate(samples)) < darkest else "brightfield"


@contextmanager
def damage_as_error(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a foreign decoder raises into one line that names the file, the part and the remedy.

    What may be gone at the next try is no damage: it stays, or becomes, an OSError.
    """
    try:
        yield
    except (ComirBatchError, MemoryError):
        raise
    except Exception as error:
        if number := passing_errno(error):
            raise OSError(number, os.strerror(number), str(path)) from error
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UnreadableSlideError(
            f"{path}: {what} cannot be read ({reason}); the file is damaged or cut short. Copy it again"
        ) from error


def flatten(
    rgba: NDArray[np.uint8], background: tuple[int, int, int] = (255, 255, 255), *, premultiplied: bool = False
) -> NDArray[np.uint8]:
    """Lay ``(Y, X, 4)`` pixels over a background and return ``(3, Y, X)``; alpha is straight, or multiplied in."""
    colours, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() < 255:
        behind = np.array(background, np.uint32) * (255 - alpha.astype(np.uint32))
        front = colours.astype(np.uint32) * (255 if premultiplied else alpha)
        colours = ((front + behind + 127) // 255).clip(max=255).astype(np.uint8)
    return np.moveaxis(colours, -1, 0)


def require_series(path: Path, wanted: int, names: list[str]) -> None:
    """Raise a SlideError that lists the images of a file unless it has the wanted one."""
    if wanted >= len(names):
        listed = ", ".join(f"{index}: {name}" for index, name in enumerate(names))
        raise SlideError(f"{path}: no series {wanted}, there are {listed}. Change fixed_series or moving_series")


def _pixel_type(path: Path, stored: str) -> str:
    """Return the name of the type in native byte order."""
    name = np.dtype(stored).name
    if name not in PIXEL_TYPES:
        raise UnreadableSlideError(
            f"{path}: pixels of type {name} cannot be warped, only {', '.join(PIXEL_TYPES)}. Export it as one of these"
        )
    return name


def _chosen(spec: SlideSpec, names: tuple[str, ...]) -> tuple[int, int]:
    if not spec.channel:
        return 0, len(names)
    if spec.channel in names:
        index = names.index(spec.channel)
    elif spec.channel.isdecimal() and int(spec.channel) < len(names):
        index = int(spec.channel)
    else:
        listed = ", ".join(f"{index}: {name}" for index, name in enumerate(names))
        raise SlideError(
            f"{spec.path}: no channel {spec.channel!r}, there are {listed}. Change fixed_channel or moving_channel"
        )
    return index, index + 1


def _pixel_size(spec: SlideSpec, headers: Headers) -> tuple[float, float]:
    if spec.mpp is not None:
        return spec.mpp, spec.mpp
    if headers.mpp is None or not all(0 < size < np.inf for size in headers.mpp):
        raise MissingPixelSizeError(
            f"{spec.path}: the file has no pixel size. "
            "Give µm per pixel of level 0 in the manifest's column fixed_mpp or moving_mpp"
        )
    return headers.mpp


def _levels(headers: Headers) -> tuple[Level, ...]:
    width, height = headers.sizes[0]
    if headers.downsamples:
        return tuple(Level(w, h, d, d) for (w, h), d in zip(headers.sizes, headers.downsamples, strict=True))
    return tuple(Level(w, h, width / w, height / h) for w, h in headers.sizes)


def _samples(width: int, height: int, level: int) -> Iterator[Region]:
    if max(width, height) <= 1024:
        yield Region(0, 0, width, height, level)
        return
    for row in (1, 3, 5, 7):
        for column in (1, 3, 5, 7):
            x, y = width * column // 8, height * row // 8
            yield Region(x, y, min(x + 64, width), min(y + 64, height), level)
