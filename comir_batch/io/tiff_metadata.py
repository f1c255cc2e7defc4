"""Pixel size and channel names of TIFF files: OME-XML, ImageJ, resolution tags."""

from __future__ import annotations

from typing import Any

import tifffile

from comir_batch.io.pixel_size import from_resolution, micrometres

_UNITS = {2: "inch", 3: "cm"}


def pixel_size(tiff: tifffile.TiffFile, series: int) -> tuple[float, float] | None:
    """Return the pixel size along x and y in µm: from OME-XML, else ImageJ's unit, else the resolution tags."""
    return _from_ome(_ome_pixels(tiff, series)) or _from_tags(tiff, tiff.series[series].keyframe)


def channel_names(tiff: tifffile.TiffFile, series: int, count: int) -> tuple[str, ...]:
    """Return one name a channel: OME-XML's, where each has one and no two are the same, else ``0``, ``1``, ..."""
    channels = _listed(_ome_pixels(tiff, series).get("Channel"))
    names = tuple(str(channel.get("Name", "")) for channel in channels)
    if len(names) == count == len(set(names)) and all(names):
        return names
    return tuple(str(index) for index in range(count))


def _ome_pixels(tiff: tifffile.TiffFile, series: int) -> dict[str, Any]:
    if not tiff.is_ome or not tiff.ome_metadata:
        return {}
    images = _listed(tifffile.xml2dict(tiff.ome_metadata)["OME"].get("Image"))
    return dict(images[series].get("Pixels", {})) if series < len(images) else {}


def _from_ome(pixels: dict[str, Any]) -> tuple[float, float] | None:
    x, y = (
        micrometres(_number(pixels.get(f"PhysicalSize{axis}")), str(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        for axis in "XY"
    )
    return None if x is None or y is None else (x, y)


def _from_tags(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> tuple[float, float] | None:
    tags = {name: page.tags.valueof(name) for name in ("XResolution", "YResolution", "ResolutionUnit")}
    unit = str((tiff.imagej_metadata or {}).get("unit", "")) or _UNITS.get(int(tags["ResolutionUnit"] or 0), "")
    return from_resolution(_ratio(tags["XResolution"]), _ratio(tags["YResolution"]), unit)


def _number(value: Any) -> float:
    """Return a number, 0 for what is none: missing, or with a decimal comma."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _ratio(value: tuple[int, int] | None) -> float:
    return value[0] / value[1] if value and value[1] else 0.0


def _listed(value: Any) -> list[dict[str, Any]]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
