"""An image of finished arrays as one file or folder of the user's, OME-Zarr or OME-TIFF by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.core.errors import UserError
from comir_batch.io.ngff_writer import write_ngff_metadata
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.layout import level_path

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.io.ngff_writer import NgffImage

_TIFFS = (".ome.tif", ".ome.tiff")


def require_image_name(out: Path) -> None:
    """Raise UserError unless a name tells which kind of image is wanted."""
    if not out.name.lower().endswith((".zarr", *_TIFFS)):
        raise UserError(f"{out}: no image by its name. Give a .ome.zarr or a .ome.tif")


def publish(folder: Path, image: NgffImage, out: Path) -> None:
    """Make an image of a folder of finished arrays; it appears whole, by a rename.

    Parameters
    ----------
    folder : Path
        Holds a `ZarrArray` for each level, as `layout.level_path` names them; it becomes the OME-Zarr, or stays where
        an OME-TIFF is made of it.
    image : NgffImage
        What is said of the image.
    out : Path
        Where it shall be; see `require_image_name`.
    """
    if out.name.lower().endswith(_TIFFS):
        levels = [ZarrArray.open(level_path(folder, number)) for number in range(len(image.levels))]
        write_ome_tiff(levels, out, TiffImage(image.name, image.levels[0], image.channels, image.is_rgb), "deflate")
    else:
        write_ngff_metadata(folder, image)
        folder.rename(out)
