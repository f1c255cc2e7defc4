"""Zeiss CZI through pylibCZIrw, an optional extra."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.errors import SlideError, UnreadableSlideError
from comir_batch.io.slide_reader import RGB, Headers, SlideReader, damage_as_error, require_series

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.core.slide import SlideSpec

_DTYPES = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32", "Bgr24": "uint8", "Bgr48": "uint16"}
_SMALL = 1024


class CziReader(SlideReader):
    """One scene of a CZI; `series` counts scenes. Levels are halvings that libCZI makes from the file's own pyramid.

    Raises
    ------
    SlideError
        If another axis than C, X and Y has several planes, or there is no such scene.
    UnreadableSlideError
        If the package is not installed, or the file is damaged or of mixed pixel types.
    """

    def __init__(self, spec: SlideSpec) -> None:
        library = _library(spec.path)
        with damage_as_error(spec.path, "its headers"):
            self._file = library.CziReader(str(spec.path))
            _require_one_plane(spec.path, self._file.total_bounding_box)
            scenes = self._file.scenes_bounding_rectangle or {0: self._file.total_bounding_rectangle}
            require_series(spec.path, spec.series, [f"scene {number}" for number in scenes])
            self._scene, self._box = sorted(scenes.items())[spec.series]
            self._colour, headers = _headers(spec.path, self._file, (self._box.w, self._box.h))
        super().__init__(spec, headers)

    def _pixels(self, region: Region) -> NDArray[np.generic]:
        if self._colour:
            return self._plane(0, region)[..., ::-1].transpose(2, 0, 1)[self._first : self._last]
        return np.stack([self._plane(channel, region)[..., 0] for channel in range(self._first, self._last)])

    def _plane(self, channel: int, region: Region) -> NDArray[np.generic]:
        factor = 2**region.level
        corner = self._box.x + region.x0 * factor, self._box.y + region.y0 * factor
        roi = (*corner, region.width * factor, region.height * factor)
        scene = self._scene if self._file.scenes_bounding_rectangle else None
        pixels = self._file.read(roi=roi, plane={"C": channel}, scene=scene, zoom=1 / factor)
        if pixels.shape[:2] != region.shape:
            raise ValueError(f"libCZI returned {pixels.shape[:2]} pixels for {region.shape}")
        return np.asarray(pixels)

    def _release(self) -> None:
        self._file.close()


def _library(path: Path) -> Any:
    try:
        return importlib.import_module("pylibCZIrw.czi")
    except ImportError as error:
        raise UnreadableSlideError(
            f"{path}: CZI needs a package that is not installed. Run pip install 'comir-batch[czi]'"
        ) from error


def _require_one_plane(path: Path, extents: dict[str, tuple[int, int]]) -> None:
    for axis, (start, end) in extents.items():
        if axis not in "CXY" and end - start > 1:
            raise SlideError(f"{path}: axis {axis} has {end - start} planes. Export one plane, or their projection")


def _headers(path: Path, file: Any, size: tuple[int, int]) -> tuple[bool, Headers]:
    """Return whether the pixels are BGR, and the headers."""
    types = set(file.pixel_types.values())
    kind = str(next(iter(types)))
    colour = kind.startswith("Bgr")
    if len(types) > 1 or kind not in _DTYPES or (colour and len(file.pixel_types) > 1):
        raise UnreadableSlideError(f"{path}: pixels of types {sorted(map(str, types))}. Export it as OME-TIFF")
    document = file.metadata["ImageDocument"]["Metadata"]
    names = RGB if colour else _names(document, len(file.pixel_types))
    factors = [1]
    while max(size) // factors[-1] > _SMALL and min(size) // factors[-1] > 1:
        factors.append(factors[-1] * 2)
    sizes = tuple((size[0] // factor, size[1] // factor) for factor in factors)
    return colour, Headers(sizes, names, _DTYPES[kind], _pixel_size(document), "czi", tuple(map(float, factors)))


def _names(document: dict[str, Any], count: int) -> tuple[str, ...]:
    found = _dig(document, "Information", "Image", "Dimensions", "Channels", "Channel")
    channels = found if isinstance(found, list) else [found or {}]
    names = tuple(str(channel.get("@Name", "")) for channel in channels)
    return names if len(names) == count == len(set(names)) and all(names) else tuple(map(str, range(count)))


def _pixel_size(document: dict[str, Any]) -> tuple[float, float] | None:
    distances = _dig(document, "Scaling", "Items", "Distance") or []
    metres = {entry["@Id"]: float(entry["Value"]) for entry in distances if entry.get("Value")}
    return (metres["X"] * 1e6, metres["Y"] * 1e6) if {"X", "Y"} <= metres.keys() else None


def _dig(document: Any, *keys: str) -> Any:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document
