"""OME-Zarr folders, versions 0.4 (Zarr v2) and 0.5 (Zarr v3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from comir_batch.core.errors import SlideError, UnreadableSlideError
from comir_batch.io.pixel_size import micrometres
from comir_batch.io.slide_reader import RGB, Headers, SlideReader, damage_as_error, require_series

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Region
    from comir_batch.core.slide import SlideSpec


class NgffReader(SlideReader):
    """One multiscale image of an OME-Zarr folder; `series` counts its images, also in bioformats2raw's layout.

    The pixel size is the finest level's scale in the axes' unit; its translation is not an origin, since slides start
    at zero. Levels are placed by their sizes.

    Raises
    ------
    SlideError
        If time or z have several planes, or there is no such series.
    UnreadableSlideError
        If the folder is no OME-Zarr image, or damaged.
    """

    def __init__(self, spec: SlideSpec) -> None:
        with damage_as_error(spec.path, "its metadata"):
            images = list(_images(spec.path))
            require_series(spec.path, spec.series, [str(image.get("name", "image")) for _, _, image in images])
            group, ome, multiscale = images[spec.series]
            self._levels = [_array(group, dataset["path"]) for dataset in multiscale["datasets"]]
            self._axes = [str(axis["name"]) for axis in multiscale["axes"]]
            _require_one_plane(spec.path, self._axes, self._levels[0].shape)
            headers = self._headers(multiscale, ome)
        super().__init__(spec, headers)

    def _headers(self, multiscale: dict[str, Any], ome: dict[str, Any]) -> Headers:
        x, y = self._axes.index("x"), self._axes.index("y")
        sizes = tuple((level.shape[x], level.shape[y]) for level in self._levels)
        count = self._levels[0].shape[self._axes.index("c")] if "c" in self._axes else 1
        return Headers(sizes, _names(ome, count), str(self._levels[0].dtype), _pixel_size(multiscale, x, y), "ome-zarr")

    def _pixels(self, region: Region) -> NDArray[np.generic]:
        wanted = dict(zip("yx", region.slices, strict=True)) | {"c": slice(self._first, self._last)}
        pixels = np.asarray(self._levels[region.level][tuple(wanted.get(axis, 0) for axis in self._axes)])
        return pixels if "c" in self._axes else pixels[np.newaxis]

    def _release(self) -> None:
        self._levels = []


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder holds Zarr metadata."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))


def _images(path: Path) -> Iterator[tuple[zarr.Group, dict[str, Any], dict[str, Any]]]:
    """Yield each image as its group, the group's OME attributes and the multiscale among them."""
    root = zarr.open(LocalStore(path, read_only=True), mode="r")
    groups = [root] if isinstance(root, zarr.Group) else []
    if groups and "bioformats2raw.layout" in _ome(groups[0]):
        names = sorted((name for name in groups[0].group_keys() if name.isdecimal()), key=int)
        groups = [child for name in names if isinstance(child := groups[0][name], zarr.Group)]
    found = [(group, _ome(group), image) for group in groups for image in _ome(group).get("multiscales", ())]
    if not found:
        raise UnreadableSlideError(f"{path}: Zarr without multiscale images. Give the folder of an OME-Zarr image")
    yield from found


def _ome(group: zarr.Group) -> dict[str, Any]:
    """Return what 0.5 keeps under ``ome`` and 0.4 among the attributes themselves."""
    attributes: dict[str, Any] = dict(group.attrs.asdict())
    return dict(attributes.get("ome", attributes))


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    level = group[name]
    if not isinstance(level, zarr.Array):
        raise TypeError(f"level {name} is no array")
    return level if level.dtype.isnative else _of_other_byte_order(group, name)


def _of_other_byte_order(group: zarr.Group, name: str) -> Any:
    """Open an array with zarr's own codecs, as those of `zarrs` refuse a foreign byte order."""
    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        return group[name]


def _require_one_plane(path: Path, axes: list[str], shape: tuple[int, ...]) -> None:
    for axis, size in zip(axes, shape, strict=True):
        if axis not in "cyx" and size > 1:
            raise SlideError(f"{path}: axis {axis} has {size} planes. Export one plane, or their projection")


def _names(ome: dict[str, Any], count: int) -> tuple[str, ...]:
    """Return the channels' labels where each has one of its own; ``red, green, blue`` in any case is a colour image."""
    labels = tuple(str(channel.get("label", "")) for channel in ome.get("omero", {}).get("channels", ()))
    if tuple(label.lower() for label in labels) in (RGB, ("r", "g", "b")):
        return RGB
    return labels if len(labels) == count == len(set(labels)) and all(labels) else tuple(map(str, range(count)))


def _pixel_size(multiscale: dict[str, Any], x: int, y: int) -> tuple[float, float] | None:
    factors = np.ones(len(multiscale["axes"]))
    for steps in (multiscale, multiscale["datasets"][0]):
        for step in steps.get("coordinateTransformations", ()):
            if step["type"] == "scale":
                factors = factors * np.array(step["scale"], dtype=float)
    sizes = [micrometres(factors[axis], str(multiscale["axes"][axis].get("unit", ""))) for axis in (x, y)]
    return None if sizes[0] is None or sizes[1] is None else (sizes[0], sizes[1])
