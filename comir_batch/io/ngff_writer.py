"""Metadata of OME-Zarr 0.5 images; the pixels are `ZarrArray` folders named 0, 1, ... that were written before."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from ome_zarr_models.v05.image import ImageAttrs

from comir_batch.io.whole import whole_file
from comir_batch.io.zarr_array import METADATA, ZarrArray

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.geometry import Grid

_RGB_COLOURS = ("FF0000", "00FF00", "0000FF")
_COLOURS = ("0000FF", "00FF00", "FF0000", "00FFFF", "FF00FF", "FFFF00")


@dataclass(frozen=True, slots=True)
class NgffImage:
    """An image to be published as OME-Zarr.

    Attributes
    ----------
    name : str
        Shown by viewers.
    levels : tuple of Grid
        Pixel grids, the finest first; array ``k`` lies in the folder named ``k``.
    channels : tuple of str
        Their names.
    dtype : str
        Numpy name of the pixels' type.
    is_rgb : bool
        Whether the channels are red, green and blue of one colour image.
    windows : tuple of (float, float)
        What viewers show as black and white, one a channel; empty for the whole range of integers, 0 to 1 for floats.
    attributes : dict
        More attributes of the group, beside ``ome``.
    """

    name: str
    levels: tuple[Grid, ...]
    channels: tuple[str, ...]
    dtype: str
    is_rgb: bool = False
    windows: tuple[tuple[float, float], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


def write_ngff_metadata(folder: Path, image: NgffImage) -> None:
    """Make a folder of finished arrays an OME-Zarr 0.5 image; the last step, because without it nothing opens it.

    The group's metadata appears by a rename. Each level has a scale (µm per pixel) and a translation (µm of its first
    pixel's centre) along c, y, x.

    Parameters
    ----------
    folder : Path
        Holds the arrays 0, 1, ...
    image : NgffImage
        What they are.

    Raises
    ------
    FileNotFoundError
        If an array is missing.
    ValueError
        If an array's shape or type is not what `image` says, or the metadata break the specification.

    Notes
    -----
    Specification: https://ngff.openmicroscopy.org/0.5/
    """
    for index, grid in enumerate(image.levels):
        array, expected = ZarrArray.open(folder / str(index)), (len(image.channels), *grid.shape)
        if array.shape != expected or array.dtype != np.dtype(image.dtype):
            raise ValueError(f"{array.path} is {array.dtype} {array.shape}, expected {image.dtype} {expected}")
    ome = {"version": "0.5", "multiscales": [_multiscale(image)], "omero": _omero(image)}
    ImageAttrs.model_validate(ome)
    document = {"zarr_format": 3, "node_type": "group", "attributes": {**image.attributes, "ome": ome}}
    with whole_file(folder / METADATA) as partial:
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _multiscale(image: NgffImage) -> dict[str, Any]:
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [
        {
            "path": str(index),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, grid.mpp_y, grid.mpp_x]},
                {"type": "translation", "translation": [0.0, grid.origin_y, grid.origin_x]},
            ],
        }
        for index, grid in enumerate(image.levels)
    ]
    return {"name": image.name, "axes": [{"name": "c", "type": "channel"}, *space], "datasets": datasets}


def _omero(image: NgffImage) -> dict[str, Any]:
    dtype = np.dtype(image.dtype)
    limits = (0.0, 1.0) if dtype.kind == "f" else (float(np.iinfo(dtype).min), float(np.iinfo(dtype).max))
    windows = image.windows or (limits,) * len(image.channels)
    channels = [
        {
            "label": name,
            "color": _colour(index, image),
            "active": True,
            "window": {"min": min(limits[0], low), "max": max(limits[1], high), "start": low, "end": high},
        }
        for index, (name, (low, high)) in enumerate(zip(image.channels, windows, strict=True))
    ]
    return {"name": image.name, "channels": channels, "rdefs": {"model": "color"}}


def _colour(index: int, image: NgffImage) -> str:
    if image.is_rgb:
        return _RGB_COLOURS[index]
    return "FFFFFF" if len(image.channels) == 1 else _COLOURS[index % len(_COLOURS)]
