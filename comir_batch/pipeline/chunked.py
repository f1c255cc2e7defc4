"""The working levels of a run's slides, in chunked Zarr, for those who read them without registering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.task import Resource
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.job import Inference
from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.pipeline.stages.chunk import ChunkWork

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.geometry import Grid, Region
    from comir_batch.core.slide import Photometric, SlideSpec
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.pair import Pair, Slide
    from comir_batch.pipeline.working import Working


@dataclass(frozen=True, slots=True)
class ChunkedSlide:
    """The working level of a slide, as a run's chunk stage wrote it.

    Attributes
    ----------
    folder : Path
        Of the chunk job.
    working : Working
        Level and factor.
    spec : SlideSpec
        The slide itself.
    digest : str
        Stands for the slide's content.
    modality : str
        As the manifest names it.
    masked : bool
        Whether its tissue is a mask that the user gave.
    """

    folder: Path
    working: Working
    spec: SlideSpec
    digest: str
    modality: str
    masked: bool = False

    @property
    def grid(self) -> Grid:
        """Pixels of the working level in µm."""
        return self.working.grid

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.working.info.channels)

    @property
    def photometric(self) -> Photometric:
        """Whether empty glass is bright or dark."""
        return self.working.info.photometric

    def array(self) -> ZarrArray:
        """Open the pixels; who reads many regions does it once."""
        return ZarrArray.open(SlideFiles(self.folder).pixels)

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the ``(C, Y, X)`` pixels of a region of the working grid, in the slide's dtype."""
        return self.array().read(region)

    def overview(self) -> Overview:
        """Load the thumbnail and the tissue mask."""
        return Overview.load(SlideFiles(self.folder).overview)


def chunked_slides(pair: Pair, config: RunConfig, layout: Layout) -> tuple[ChunkedSlide, ChunkedSlide]:
    """Return the fixed and the moving slide of a pair whose chunk jobs a run with this config has done."""
    jobs = build_jobs([pair], config, layout, Inference("cpu", Resource.CPU)).values()
    works = [job.work for job in jobs if isinstance(job.work, ChunkWork)]
    # The fixed slide's job comes first; there is only one where both slides have the same content.
    return _chunked(pair.fixed, works[0]), _chunked(pair.moving, works[-1])


def _chunked(slide: Slide, work: ChunkWork) -> ChunkedSlide:
    return ChunkedSlide(work.folder, work.working, slide.spec, slide.digest, slide.modality, work.mask is not None)
