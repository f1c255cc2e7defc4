"""What a slide is before any pixel is read, and the two protocols through which pixels travel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  pydantic resolves it when a manifest is validated
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

import numpy as np

from comir_batch.core.geometry import Grid, Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

Photometric = Literal["brightfield", "dark"]


@dataclass(frozen=True, slots=True)
class SlideSpec:
    """Which image of which file, as the manifest names it; small and picklable, so that any worker can open it again.

    Attributes
    ----------
    path : Path
        Absolute path of the file, or of the OME-Zarr folder.
    series : int
        Index of the image within a file that holds several.
    channel : str
        Name or index of the one channel to use; empty for all.
    mpp : float or None
        Pixel size of level 0 in µm that overrides the file's.
    photometric : {"brightfield", "dark", ""}
        Whether empty glass is bright or dark; empty to let the image tell.
    """

    path: Path
    series: int = 0
    channel: str = ""
    mpp: float | None = None
    photometric: Photometric | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class Level:
    """One pyramid level: its size in pixels and its measured downsample along each axis relative to level 0."""

    width: int
    height: int
    downsample_x: float
    downsample_y: float


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """Headers of a slide.

    Attributes
    ----------
    levels : tuple of Level
        Level 0, the finest, first.
    channels : tuple of str
        Names of the channels that ``read`` returns, in order; RGB images have ``("red", "green", "blue")``.
    dtype : str
        Numpy name of the pixels' type.
    mpp_x, mpp_y : float
        Pixel size of level 0 in µm.
    photometric : {"brightfield", "dark"}
        Whether empty glass is bright (a transmission scan) or dark (fluorescence and the rest): as the spec says, or
        as the pixels of 8-bit and 16-bit RGB tell; other images are dark unless the spec says otherwise.
    reader : str
        Name of the adapter that read it.
    """

    levels: tuple[Level, ...]
    channels: tuple[str, ...]
    dtype: str
    mpp_x: float
    mpp_y: float
    photometric: Photometric
    reader: str

    def grid(self, level: int = 0) -> Grid:
        """Return the pixel grid of a level; its first pixel lies at ``(downsample - 1) / 2`` level-0 pixels."""
        base, wanted = self.levels[0], self.levels[level]
        finest = Grid(base.width, base.height, self.mpp_x, self.mpp_y)
        return finest.coarser(wanted.downsample_x, wanted.downsample_y, wanted.width, wanted.height)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all channels."""
        return len(self.channels) * np.dtype(self.dtype).itemsize

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green and blue of one colour image."""
        return self.channels == ("red", "green", "blue")


@runtime_checkable
class PixelSource(Protocol):
    """Something that pixels can be read from, region by region."""

    @property
    def info(self) -> SlideInfo:
        """Headers; no pixel is read for them."""
        ...

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the pixels of a region that lies wholly inside its level, ``(C, Y, X)``, in the slide's dtype."""
        ...

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class PixelSink(Protocol):
    """Something that whole blocks can be written to."""

    def write(self, region: Region, pixels: NDArray[np.generic]) -> None:
        """Write ``(C, Y, X)`` pixels of a region of whole shards (or up to the border), each atomically."""
        ...
