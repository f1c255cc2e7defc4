"""One check that every reader and writer makes: a region must lie inside what it addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comir_batch.core.geometry import Region


def require_inside(region: Region, width: int, height: int) -> None:
    """Raise unless a region lies wholly inside an image.

    Parameters
    ----------
    region : Region
        Pixels that are wanted.
    width, height : int
        Size of the image in pixels of the region's level.

    Raises
    ------
    ValueError
        With both boxes.
    """
    if region.x0 < 0 or region.y0 < 0 or region.x1 > width or region.y1 > height:
        raise ValueError(
            f"region x {region.x0}..{region.x1}, y {region.y0}..{region.y1} (level {region.level}) "
            f"leaves the image x 0..{width}, y 0..{height}"
        )
