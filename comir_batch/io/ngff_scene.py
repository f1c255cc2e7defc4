"""A transform as a scene of OME-Zarr 0.6 (RFC-5): two coordinate systems in µm and what maps one to the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from comir_batch.core.transform import Affine
from comir_batch.io.whole import whole_folder
from comir_batch.io.zarr_array import METADATA

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.approximation import DisplacementField

VERSION = "0.6"
_FIELD = "coordinateTransformations/displacements"
_LEVEL = "0"
_CHUNK = 512


def write_scene(transform: Affine | DisplacementField, path: Path, *, source: str, target: str) -> None:
    """Write a Zarr group with a scene; it appears whole, by a rename; nothing may be there yet.

    An affine stands in the metadata. A field is an image of the group, ``(c, y, x)`` float64 in µm, c being the
    displacement along y, then along x.

    Parameters
    ----------
    transform : Affine or DisplacementField
        In µm, ``(x, y)``.
    path : Path
        Folder of the group.
    source, target : str
        Names of the coordinate systems that it maps from and to, both (y, x).

    Notes
    -----
    Specification: https://ngff.openmicroscopy.org/0.6/#scene-md
    """
    systems = [{"name": name, "axes": _space()} for name in (source, target)]
    with whole_folder(path) as partial:
        entry = _affine(transform) if isinstance(transform, Affine) else _displacements(transform, partial)
        entry |= {"name": f"{source} to {target}", "input": {"name": source}, "output": {"name": target}}
        _group(partial, {"scene": {"coordinateSystems": systems, "coordinateTransformations": [entry]}})


def _affine(affine: Affine) -> dict[str, Any]:
    rows = np.column_stack([affine.matrix[::-1, ::-1], affine.offset[::-1]])
    return {"type": "affine", "affine": rows.tolist()}


def _displacements(field: DisplacementField, folder: Path) -> dict[str, Any]:
    image, grid = folder / _FIELD, field.grid
    _group(folder / _FIELD.split("/", maxsplit=1)[0], None)
    vectors = np.ascontiguousarray(field.vectors[::-1])
    chunks = (2, min(_CHUNK, grid.height), min(_CHUNK, grid.width))
    array = zarr.create_array(
        image / _LEVEL, shape=vectors.shape, dtype=vectors.dtype, chunks=chunks, dimension_names=("c", "y", "x")
    )
    array[:] = vectors
    _group(image, {"multiscales": [_multiscale(field)]})
    return {"type": "displacements", "path": _FIELD, "interpolation": "linear"}


def _multiscale(field: DisplacementField) -> dict[str, Any]:
    grid = field.grid
    axes = [{"name": "c", "type": "displacement", "discrete": True}, *_space()]
    steps = [
        {"type": "scale", "scale": [1.0, grid.mpp_y, grid.mpp_x]},
        {"type": "translation", "translation": [0.0, grid.origin_y, grid.origin_x]},
    ]
    place = {"type": "sequence", "input": {"path": _LEVEL}, "output": {"name": "physical"}, "transformations": steps}
    return {
        "name": "displacements",
        "coordinateSystems": [{"name": "physical", "axes": axes}],
        "datasets": [{"path": _LEVEL, "coordinateTransformations": [place]}],
    }


def _space() -> list[dict[str, Any]]:
    return [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]


def _group(folder: Path, ome: dict[str, Any] | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {} if ome is None else {"ome": {"version": VERSION, **ome}}
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / METADATA).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
