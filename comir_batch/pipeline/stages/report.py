"""report: one self-contained page a pair, also for a pair that failed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import comir_batch
from comir_batch.core.task import Task
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline import cost
from comir_batch.pipeline.files import read_json, write_arrays, write_text
from comir_batch.pipeline.job import STAGES, Estimate
from comir_batch.pipeline.layout import RegisterFiles
from comir_batch.pipeline.pictures import Pictures, make_pictures
from comir_batch.pipeline.records import FILES, read_history
from comir_batch.pipeline.review import decision_text, settings_by_hand
from comir_batch.pipeline.stages.chunk import BASE_MB
from comir_batch.pipeline.start import start_transform
from comir_batch.pipeline.views import read_mb
from comir_batch.report.data import CandidateRow, Link, PairPage, Provenance, SlideFacts, StageCost
from comir_batch.report.decision import with_decision
from comir_batch.report.figures import fit, overlay
from comir_batch.report.pair_page import pair_page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.pipeline.layout import Layout, PairFiles
    from comir_batch.pipeline.pair import Pair, Slide
    from comir_batch.pipeline.views import Side

_PICTURES_MB = 500
_BYTES_PER_PIXEL = 60
_THUMBNAIL_SIDE = 96
_LOG_LINES = 40
_OUTPUTS = (
    ("transform.json", "transform_json", "our format, lossless, fixed µm to moving µm"),
    ("transform.h5", "transform_itk", "the same for ITK and SimpleITK"),
    ("transforms", "dialects", "for napari, QuPath and Warpy; conventions.json says which way and how far off"),
    ("elastix", "elastix", "parameter files as elastix wrote them"),
    ("aligned.ome.zarr", "image_metadata", "the moving slide on the fixed slide's grid"),
    ("aligned.ome.tif", "aligned_tiff", "the same as pyramidal OME-TIFF"),
    ("verdict.json", "verdict", "verdict, reasons and metrics"),
    ("logs", "logs", ""),
)


@dataclass(frozen=True, slots=True)
class ReportWork:
    """What the page of one pair takes.

    Attributes
    ----------
    factor : int
        Reduction of the working level that registration worked at.
    jobs : tuple of str
        Keys of the pair's jobs, for what they cost.
    """

    layout: Layout
    pair: Pair
    sides: tuple[Side, Side]
    factor: int
    register: Path
    judge: Path
    jobs: tuple[str, ...]

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """One task."""
        return [Task(f"{key}-page", write_page, self, memory_mb=self.memory_mb)] if number == 0 else None

    @property
    def memory_mb(self) -> int:
        """Most memory of the task: the registered images of both views, and the pictures."""
        return BASE_MB + _PICTURES_MB + int(self._pixels * _BYTES_PER_PIXEL / 1e6)

    @property
    def _pixels(self) -> int:
        return max(side.working.grid.width * side.working.grid.height for side in self.sides) // self.factor**2

    def estimate(self) -> Estimate:
        """Return what it will take."""
        read = read_mb(self.sides)
        return Estimate(1, self.memory_mb, cost.PAGE_MB, read_mb=read, cpu_s=cost.report_s(self._pixels))


def write_page(work: ReportWork) -> dict[str, Any]:
    """Draw and write the page; runs on a worker. It stands only as long as what it links to."""
    files = work.layout.pair(work.pair.name)
    published = read_json(files.verdict)
    pictures = None
    if published["verdict"] != Verdict.ERROR:
        pictures = pictures_of(work)
        _write_thumbnail(files, pictures, work)
    page = pair_page(_page(work, published, pictures))
    write_text(files.report, with_decision(page, work.pair.name, decision_text(work.layout, work.pair.name)))
    linked = [files.folder / link.path for link in _links(files, failed=pictures is None)]
    return {FILES: [path.relative_to(work.layout.root).as_posix() for path in linked]}


def pictures_of(work: ReportWork) -> Pictures:
    """Return what the page shows of a pair whose jobs are done and whose intermediate results are there."""
    grids = [side.working.grid for side in work.sides]
    start = start_transform(grids[0], grids[1], work.pair.row.initial_transform)
    return make_pictures(work.sides, work.factor, start, work.register, work.judge)


def _page(work: ReportWork, published: dict[str, Any], pictures: Pictures | None) -> PairPage:
    pair, files = work.pair, work.layout.pair(work.pair.name)
    drawn: dict[str, Any] = {}
    if pictures is not None:
        names = ("grid", "slides", "comirs", "maps", "worst")
        drawn = {name: getattr(pictures, name) for name in names}
    return PairPage(
        pair_id=pair.name,
        verdict=Verdict(published["verdict"]),
        reasons=tuple(published["reasons"]),
        fixed=_facts(pair.fixed),
        moving=_facts(pair.moving),
        metrics=published["metrics"],
        model="none" if pair.model is None else pair.model.card.name,
        model_choice=pair.model_choice,
        assumed=(*pair.assumed, *settings_by_hand(work.layout, pair.name)),
        costs=_costs(work),
        candidates=_candidates(work.register) if pictures is not None else (),
        links=tuple(_links(files, failed=pictures is None)),
        provenance=_provenance(work),
        log_tail="" if pictures is not None else _log_tail(files),
        index_path="../../report.html",
        **drawn,
    )


def _facts(slide: Slide) -> SlideFacts:
    level = slide.info.levels[0]
    details = f"{', '.join(slide.info.channels)} · {slide.info.dtype} · read with {slide.info.reader}"
    return SlideFacts(
        file_name=slide.spec.path.name,
        modality=slide.modality,
        width=level.width,
        height=level.height,
        mpp=slide.info.mpp_x,
        photometric=slide.info.photometric,
        details=details,
    )


def _costs(work: ReportWork) -> tuple[StageCost, ...]:
    history = read_history(work.layout.records)
    costs = []
    for stage in STAGES:
        records = [history.of(key) for key in work.jobs if key.startswith(f"{stage}-")]
        if any(record.tasks for record in records):
            seconds = sum(record.seconds for record in records)
            costs.append(StageCost(stage, seconds, max(record.peak_mb for record in records)))
    return tuple(costs)


def _candidates(register: Path) -> tuple[CandidateRow, ...]:
    summary = read_json(RegisterFiles(register).summary)
    return tuple(CandidateRow(**row) for row in summary["candidates"])


def _links(files: PairFiles, *, failed: bool) -> list[Link]:
    """Return what lies beside the page; results of an earlier run are not those of a failed pair."""
    outputs = [each for each in _OUTPUTS if not failed or each[1] in {"verdict", "logs"}]
    there = [(label, note) for label, name, note in outputs if getattr(files, name).exists()]
    return [Link(label, label, note) for label, note in there]


def _provenance(work: ReportWork) -> Provenance:
    run = read_json(work.layout.run_json)
    return Provenance(
        version=comir_batch.__version__,
        command=" ".join(run["command"]),
        config_digest=run["config_digest"],
        seeds=run["seeds"],
        finished=time.strftime("%Y-%m-%d %H:%M:%S"),
        host=run["host"]["name"],
        packages=run["versions"],
    )


def _log_tail(files: PairFiles) -> str:
    log = files.logs / "error.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return "\n".join(lines[-_LOG_LINES:])


def _write_thumbnail(files: PairFiles, pictures: Pictures, work: ReportWork) -> None:
    images, kinds = (pictures.slides.fixed, pictures.slides.after), [s.working.info.photometric for s in work.sides]
    if images[1] is not None:
        write_arrays(files.thumbnail, pixels=fit(overlay(images[0], images[1], *kinds), _THUMBNAIL_SIDE))
