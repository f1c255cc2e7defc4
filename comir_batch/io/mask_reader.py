"""Masks: small raster images, PNG or TIFF."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from PIL import Image

from comir_batch.core.errors import UserError
from comir_batch.io.image_reader import LARGEST_SIDE
from comir_batch.io.slide_reader import damage_as_error

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return a mask ``(Y, X)``, True where the image is not zero in any of its colours; alpha does not count.

    The mask covers the whole slide, whatever its own size.

    Parameters
    ----------
    path : Path
        A PNG or TIFF of at most 16384 pixels a side, one plane, any type.

    Raises
    ------
    UserError
        If it is missing, damaged, too large, has several planes or marks nothing.
    """
    if not path.is_file():
        raise UserError(f"{path}: No such file. Check the path")
    with damage_as_error(path, "the mask"):
        marked = _marked(path)
    if marked.ndim != 2:
        raise UserError(f"{path}: a mask of {marked.ndim} dimensions {marked.shape}. Export one plane")
    if not marked.any():
        raise UserError(f"{path}: the mask is empty, every pixel is zero. Mark the tissue, or leave the cell empty")
    return marked


def _marked(path: Path) -> NDArray[np.bool_]:
    with path.open("rb") as stream:
        is_tiff = stream.read(2) in (b"II", b"MM")
    if is_tiff:
        with tifffile.TiffFile(path) as tiff:
            series = tiff.series[0]
            _require_small(path, max(series.shape))
            return _nonzero(series.asarray(), colour=series.axes.endswith("S"))
    with Image.open(path) as image:
        _require_small(path, max(image.size))
        return _nonzero(np.asarray(image), colour=len(image.getbands()) > 1)


def _require_small(path: Path, side: int) -> None:
    if side > LARGEST_SIDE:
        raise UserError(f"{path}: {side} pixels a side are too many for a mask. Reduce it to {LARGEST_SIDE} or fewer")


def _nonzero(pixels: NDArray[np.generic], *, colour: bool) -> NDArray[np.bool_]:
    if not colour:
        return np.asarray(pixels != 0)
    colours = pixels[..., : 1 if pixels.shape[-1] == 2 else 3]
    return np.asarray((colours != 0).any(axis=-1))
