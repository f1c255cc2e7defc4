"""Representing slides that are not paired yet: chunk and represent of a run, for each slide by itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from comir_batch.core.errors import ManifestError, Problem
from comir_batch.core.events import EventBus
from comir_batch.core.manifest import Manifest, PairRow
from comir_batch.core.verdict import Verdict
from comir_batch.execution.start import start_executor
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.inspect import Inspection, inspect_manifest
from comir_batch.pipeline.layout import Layout, SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.pipeline.profiles import site_profile
from comir_batch.pipeline.run import RunRequest, run_inspected
from comir_batch.pipeline.stages.represent import RepresentWork

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.geometry import Grid, Region
    from comir_batch.core.slide import SlideSpec
    from comir_batch.execution.stop import StopRequest
    from comir_batch.pipeline.pair import Pair
    from comir_batch.representation.store import Model


@dataclass(frozen=True, slots=True)
class SlideRow:
    """A slide as a table names it.

    Attributes
    ----------
    row : int
        Its line in the table; the header is row 1.
    name : str
        Its slide_id.
    spec : SlideSpec
        How to open it.
    modality : str
        Lower-case, as model cards use it.
    mask : Path or None
        The user's tissue mask.
    """

    row: int
    name: str
    spec: SlideSpec
    modality: str
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class RepresentedSlide:
    """A slide's representation, as a run's represent stage wrote it.

    Attributes
    ----------
    chunk, representation : Path
        Folders of the two jobs.
    grid : Grid
        The working level's pixels in µm.
    """

    chunk: Path
    representation: Path
    grid: Grid

    def read(self, region: Region) -> NDArray[np.float32]:
        """Return the ``(C, Y, X)`` representation of a region of the working grid."""
        pixels = ZarrArray.open(SlideFiles(self.representation).pixels).read(region)
        return pixels.astype("float32")

    def overview(self) -> Overview:
        """Load the thumbnail and the tissue mask."""
        return Overview.load(SlideFiles(self.chunk).overview)


@dataclass(frozen=True, slots=True)
class RepresentRequest:
    """What to represent, with what, and where to.

    Attributes
    ----------
    table : Path
        The CSV that the rows are from, for the record.
    folder : Path
        A run directory that goes as far as the represent stage; what is there already is not made again.
    """

    table: Path
    rows: tuple[SlideRow, ...]
    model: Model
    folder: Path
    config: RunConfig
    command: tuple[str, ...] = ()


def inspect_slides(request: RepresentRequest) -> tuple[Pair, ...]:
    """Open the headers of all slides; each is inspected as a pair with itself.

    Raises
    ------
    ManifestError
        With all that is wrong with the slides.
    """
    rows = tuple(_with_itself(row) for row in request.rows)
    inspection = inspect_manifest(Manifest(request.table, rows, ()), str(request.model.folder))
    if inspection.problems:
        raise ManifestError(sorted(set(map(_of_slides, inspection.problems))))
    return inspection.pairs


def represent_slides(request: RepresentRequest, subscriber: Subscriber, stop: StopRequest) -> list[RepresentedSlide]:
    """Represent slides on the executor that the settings name, resumably; in the order of the rows.

    Raises
    ------
    ManifestError
        With all that is wrong with the slides, or became of them.
    StoppedError, NoWorkersError
        From the executor; the same call goes on.
    """
    pairs = inspect_slides(request)
    layout = Layout(request.folder.resolve())
    wanted = RunRequest(
        request.table, layout.root, request.config, target="represent", keep_work=True, command=request.command
    )
    summary = run_inspected(Inspection(pairs, ()), wanted, EventBus(subscriber), partial(start_executor, stop=stop))
    failed = {result.pair_id: result.reasons for result in summary.results if result.verdict is Verdict.ERROR}
    if failed:
        raise ManifestError([_failure(pair, failed[pair.name]) for pair in pairs if pair.name in failed])
    return [_represented(pair, request.config, layout) for pair in pairs]


def _with_itself(row: SlideRow) -> PairRow:
    return PairRow(
        row=row.row,
        pair_id=row.name,
        fixed=row.spec,
        moving=row.spec,
        fixed_modality=row.modality,
        moving_modality=row.modality,
        fixed_mask=row.mask,
        moving_mask=row.mask,
    )


def _of_slides(problem: Problem) -> Problem:
    """Return a problem of a pair as one of a slide, by the names of its table's columns."""
    columns = {"fixed": "path", "moving": "path", "fixed_mask": "mask", "moving_mask": "mask"}
    remedy = problem.remedy.replace("the manifest's column fixed_mpp or moving_mpp", "the table's column mpp")
    return problem._replace(column=columns.get(problem.column, problem.column), remedy=remedy)


def _failure(pair: Pair, reasons: tuple[str, ...]) -> Problem:
    return Problem(pair.row.row, "-", f"{pair.name}: {'; '.join(reasons)}", "Mend the file, or leave the row out")


def _represented(pair: Pair, config: RunConfig, layout: Layout) -> RepresentedSlide:
    where = inference(config.execution, site_profile(config.execution))
    jobs = build_jobs([pair], config, layout, where).values()
    work = next(job.work for job in jobs if isinstance(job.work, RepresentWork))
    return RepresentedSlide(work.chunk, work.folder, work.working.grid)
