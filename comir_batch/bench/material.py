"""What throughput is measured on: a square of mirrored tiles of a real slide, in memory and as files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from comir_batch.bench.mirrored import MirroredSlide
from comir_batch.bench.slides import MadeUp, write_made_up
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import SlideInfo


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A square of mirrored tiles of a slide.

    Attributes
    ----------
    slide : Path
        The real one.
    info : SlideInfo
        Of the square.
    pixels : (C, Y, X) array
        Its level 0.
    folder : Path
        Takes files for the time of the measurement.
    threads : int
        Of everybody.
    model, modality : str
        For representations; the model's first modality if empty.
    network_side : int
        Pixels a side that are represented.
    """

    slide: Path
    info: SlideInfo
    pixels: NDArray[np.generic]
    folder: Path
    threads: int
    model: str
    modality: str
    network_side: int

    @property
    def grid(self) -> Grid:
        """Pixels of the square in µm."""
        return self.info.grid()

    @property
    def side(self) -> int:
        """Pixels of the square."""
        return self.grid.width

    @property
    def said(self) -> str:
        """The square in words."""
        return f"{self.side} x {self.side} px, {len(self.pixels)} x {self.info.dtype}"

    def brightest(self) -> NDArray[np.generic]:
        """Return one ``(Y, X)`` channel: the largest of all, contiguous."""
        return np.ascontiguousarray(self.pixels.max(axis=0))

    def interleaved(self) -> NDArray[np.generic]:
        """Return ``(Y, X, C)`` pixels, contiguous, as libvips and scikit-image have them."""
        return np.ascontiguousarray(np.moveaxis(self.pixels, 0, -1))

    def tiff(self) -> Path:
        """Return the square as OME-TIFF, in JPEG where its type allows; made the first time."""
        path = self.folder / "square.ome.tif"
        if not path.exists():
            codec = "jpeg" if self.info.dtype == "uint8" else "deflate"
            said = f"mirrored tiles of {self.slide.name}"
            slide = MadeUp(said, self.info, lambda box: self.pixels[:, *box.slices], codec, UUID(int=0))
            write_made_up(slide, path, lambda _: None)
        return path


def pixels_of(slide: Path, side: int) -> tuple[SlideInfo, NDArray[np.generic]]:
    """Return the headers and the ``(C, side, side)`` pixels of mirrored tiles of a slide.

    Raises
    ------
    SlideError
        If the slide cannot be read.
    """
    with MirroredSlide(open_slide(SlideSpec(slide)), side) as mirrored:
        return mirrored.info, mirrored.read(Region(0, 0, side, side))
