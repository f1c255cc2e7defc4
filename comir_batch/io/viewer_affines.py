"""Affines as napari's layers and QuPath's image overlays take them, in JSON with their convention beside the matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.transform import Affine
from comir_batch.io.transform_files import write_document

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.geometry import Grid

NAPARI_CENTRE = 0.0
QUPATH_CENTRE = 0.5


def between_pixels(affine: Affine, source: Grid, target: Grid, centre: float) -> Affine:
    """Return an affine between two slides' µm as one between their pixels.

    Parameters
    ----------
    affine : Affine
        Maps ``(x, y)`` in µm of the source slide to µm of the target slide.
    source, target : Grid
        The slides' grids.
    centre : float
        Coordinate of the first pixel's centre: 0 where whole numbers are centres, 0.5 where they are borders.
    """
    return pixels_to_um(target, centre).inverse().after(affine).after(pixels_to_um(source, centre))


def pixels_to_um(grid: Grid, centre: float) -> Affine:
    """Return what maps a grid's pixel coordinates, whose first centre is ``(centre, centre)``, to µm."""
    scale = np.array([grid.mpp_x, grid.mpp_y])
    return Affine(np.diag(scale), np.array([grid.origin_x, grid.origin_y]) - scale * centre)


def write_napari(affine: Affine, path: Path, about: dict[str, Any]) -> None:
    """Write a 3 x 3 matrix in (row, column) order, napari's `affine` of a layer.

    Parameters
    ----------
    affine : Affine
        In ``(x, y)`` order.
    path : Path
        The file; it appears whole, by a rename.
    about : dict
        Convention and error, which stand beside the matrix.

    Notes
    -----
    Convention: https://napari.org/stable/api/napari.layers.Layer.html
    """
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = affine.matrix[::-1, ::-1], affine.offset[::-1]
    write_document({"format": "napari layer affine", "axes": ["y", "x"], **about, "affine": matrix.tolist()}, path)


def write_qupath(affine: Affine, path: Path, about: dict[str, Any]) -> None:
    """Write a matrix as QuPath's `GsonTools` reads an `AffineTransform`: m00, m10, m01, m11, m02, m12.

    QuPath's image overlay has the matrix that maps pixels of the image below to pixels of the overlay.

    Parameters
    ----------
    affine : Affine
        In ``(x, y)`` order, between pixels whose centres lie at 0.5.
    path : Path
        The file; it appears whole, by a rename.
    about : dict
        Convention and error, which QuPath skips.
    """
    names = ("m00", "m01", "m02", "m10", "m11", "m12")
    values = np.column_stack([affine.matrix, affine.offset]).ravel().tolist()
    write_document({**about, **dict(zip(names, values, strict=True))}, path)
