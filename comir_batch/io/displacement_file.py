"""Displacement fields as `.mha`, a vector image as ITK, elastix, SimpleITK and 3D Slicer use it for a transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.approximation import DisplacementField
from comir_batch.core.geometry import Grid
from comir_batch.io.transform_files import itk_file, simple_itk

if TYPE_CHECKING:
    from pathlib import Path


def write_mha(field: DisplacementField, path: Path) -> None:
    """Write a field, compressed; the file appears whole, by a rename.

    Pixels are ``(dx, dy)`` in µm as float64, origin and spacing are µm too: `SimpleITK.DisplacementFieldTransform` of
    the image maps points as the field does. Beyond its samples ITK moves nothing.

    Raises
    ------
    UserError
        If SimpleITK is not installed.
    """
    sitk, grid = simple_itk(path), field.grid
    image = sitk.GetImageFromArray(np.moveaxis(field.vectors, 0, -1), isVector=True)
    image.SetSpacing((grid.mpp_x, grid.mpp_y))
    image.SetOrigin((grid.origin_x, grid.origin_y))
    with itk_file(path) as partial:
        sitk.WriteImage(image, str(partial), useCompression=True)


def read_mha(path: Path) -> DisplacementField:
    """Read what `write_mha` wrote."""
    image = simple_itk(path).ReadImage(str(path))
    grid = Grid(*image.GetSize(), *image.GetSpacing(), *image.GetOrigin())
    vectors = np.moveaxis(np.asarray(simple_itk(path).GetArrayFromImage(image), dtype=np.float64), -1, 0)
    return DisplacementField(grid, np.ascontiguousarray(vectors))
