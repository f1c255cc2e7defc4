"""From pairs to jobs: which stages a run consists of, and what each depends on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from comir_batch.core.errors import ConfigError
from comir_batch.core.task import Resource
from comir_batch.core.verdict import Verdict
from comir_batch.pipeline.by_hand import ByHand, config_of, flat, read_by_hand, standing
from comir_batch.pipeline.fingerprint import fingerprint
from comir_batch.pipeline.job import Job
from comir_batch.pipeline.layout import JudgeFiles, SlideFiles
from comir_batch.pipeline.stages.chunk import ChunkWork
from comir_batch.pipeline.stages.export import ExportWork
from comir_batch.pipeline.stages.judge import JudgeWork
from comir_batch.pipeline.stages.register import STOPPED, RegisterWork
from comir_batch.pipeline.stages.report import ReportWork
from comir_batch.pipeline.stages.represent import RepresentWork
from comir_batch.pipeline.stages.warp import WarpWork, aligned_grid
from comir_batch.pipeline.views import Side, reduction
from comir_batch.registration import parameters
from comir_batch.representation.field import field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.pipeline.by_hand import Decision
    from comir_batch.pipeline.job import Inference, Work
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.pair import Pair, Slide
    from comir_batch.pipeline.records import History
    from comir_batch.pipeline.working import Working


def build_jobs(
    pairs: Iterable[Pair],
    config: RunConfig,
    layout: Layout,
    inference: Inference,
    by_hand: Mapping[str, ByHand] | None = None,
) -> dict[str, Job]:
    """Return all jobs of a full run, by key; a slide in several pairs is chunked and represented once.

    Parameters
    ----------
    pairs : iterable of Pair
        In the order of the manifest.
    config : RunConfig
        Settings.
    layout : Layout
        Of the run directory.
    inference : Inference
        Where networks compute.
    by_hand : mapping of ByHand, optional
        What was decided and set by hand for single pairs, by their names; read from the run directory if not given.

    Raises
    ------
    ConfigError
        If a setting of a single pair, or a parameter file for elastix, is wrong.
    """
    jobs: dict[str, Job] = {}
    given = read_by_hand(layout) if by_hand is None else by_hand
    for pair in pairs:
        for job in _jobs_of(pair, config, layout, inference, given):
            known = jobs.get(job.key)
            users = job.pairs if known is None else tuple(dict.fromkeys((*known.pairs, *job.pairs)))
            jobs[job.key] = replace(known or job, pairs=users)
    return jobs


def _jobs_of(
    pair: Pair, config: RunConfig, layout: Layout, inference: Inference, by_hand: Mapping[str, ByHand]
) -> list[Job]:
    """Build the jobs of one pair, with settings of its own if it has any."""
    decision = standing(by_hand, pair.name, layout.pair(pair.name).transform_json)
    given = by_hand.get(pair.name, ByHand())
    try:
        return _PairJobs(pair, config_of(config, given), layout, inference, decision).build()
    except ConfigError as error:
        if not given.settings:
            raise
        raise ConfigError(
            f"the pair {pair.name} cannot be run with its own settings ({', '.join(flat(given.settings))}): {error}. "
            f"What was set for it goes with comir-batch rerun {layout.root} --pair {pair.name} --forget"
        ) from error


def done_jobs(jobs: dict[str, Job], history: History, root: Path) -> frozenset[str]:
    """Return the keys of the jobs that are done.

    A job whose result rests on lasting results of others is done only while theirs stand too: another job may have
    written over them, or somebody may have deleted them. A registration that was stopped at its time limit is done only
    as long as the limit is no longer.
    """
    done: set[str] = set()
    for job in sorted(jobs.values(), key=lambda job: job.depth):
        rests_on = [jobs[key] for key in (*job.inputs, *job.settles) if jobs[key].bulky is None]
        stand = all(other.key in done or _was_skipped(other, history) for other in rests_on)
        if stand and history.is_done(job, root) and not _has_more_time(job, history):
            done.add(job.key)
    return frozenset(done)


def _has_more_time(job: Job, history: History) -> bool:
    if not isinstance(job.work, RegisterWork):
        return False
    values = [line["value"] for line in history.of(job.key).tasks.values()]
    return any(value.get(STOPPED, math.inf) < job.work.config.time_limit_s for value in values)


def _was_skipped(job: Job, history: History) -> bool:
    verdict = history.of(job.gate).value if job.gate else None
    return isinstance(verdict, dict) and verdict["verdict"] == "reject"


def needed(jobs: dict[str, Job], target: str, is_done: frozenset[str]) -> dict[str, Job]:
    """Return the jobs that a target stage still needs, and those that they read, done or not."""
    wanted: dict[str, Job] = {}
    queue = [job for job in jobs.values() if job.stage == target]
    while queue:
        job = queue.pop()
        if job.key in wanted:
            continue
        wanted[job.key] = job
        if job.key not in is_done:
            queue += [jobs[key] for key in (*job.inputs, *job.settles)]
    return {key: job for key, job in jobs.items() if key in wanted}


def _glass(slide: Slide) -> list[str]:
    """Return what empty glass is taken for, where file, type and channel do not say it alone, as they once did."""
    told = slide.spec.photometric or (slide.info.photometric == "brightfield" and slide.info.dtype != "uint8")
    return [slide.info.photometric] if told else []


class _PairJobs:
    """Builds the jobs of one pair, stage after stage."""

    def __init__(
        self, pair: Pair, config: RunConfig, layout: Layout, inference: Inference, decision: Decision | None
    ) -> None:
        self._pair, self._config, self._layout, self._inference = pair, config, layout, inference
        self._accepted = decision is not None and decision.verdict is Verdict.ACCEPT

    def build(self) -> list[Job]:
        """Return the jobs, inputs first."""
        row = self._pair.row
        slides = [
            self._slide_jobs(slide, mask, self._pair.file_digests.get(column, ""))
            for slide, mask, column in (
                (self._pair.fixed, row.fixed_mask, "fixed_mask"),
                (self._pair.moving, row.moving_mask, "moving_mask"),
            )
        ]
        sides = slides[0][1], slides[1][1]
        before = [job for jobs, _ in slides for job in jobs]
        register = self._register(before, sides)
        judge = self._judge(before, register, sides)
        warp = [self._warp(register, judge)] if self._config.export.images else []
        export = self._export(register, judge, warp)
        report = self._report([*before, register, judge, export], warp, sides)
        return [*before, register, judge, *warp, export, report]

    def _slide_jobs(self, slide: Slide, mask: Path | None, mask_digest: str) -> tuple[list[Job], Side]:
        chunk = self._chunk(slide, mask, mask_digest)
        if self._pair.model is None:
            return [chunk], Side(self._folder(chunk), None, self._working(slide))
        represent = self._represent(slide, chunk)
        side = Side(self._folder(chunk), self._folder(represent), self._working(slide))
        return [chunk, represent], side

    def _chunk(self, slide: Slide, mask: Path | None, mask_digest: str) -> Job:
        working, section, margin = self._working(slide), self._config.chunk, self._margin(slide)
        settings = {
            "section": {"shard": section.shard, "chunk": section.chunk},
            "image": [slide.spec.series, slide.spec.channel, slide.info.mpp_x, slide.info.mpp_y, *_glass(slide)],
            "working": [working.level, working.factor],
            "margin": margin,
        }
        print_ = fingerprint("chunk", settings, [slide.digest, mask_digest])
        folder = self._layout.job(f"chunk-{print_}")
        work = ChunkWork(folder, slide.spec, working, margin, mask, section)
        job = self._job("chunk", print_, work, (SlideFiles(folder).pixels, SlideFiles(folder).overview))
        return replace(job, bulky=folder)

    def _represent(self, slide: Slide, chunk: Job) -> Job:
        model = self._pair.model
        assert model is not None  # noqa: S101  the caller has looked
        card = model.card.modality(slide.modality)
        settings = {"section": self._config.represent, "device": self._inference.device, "card": card}
        print_ = fingerprint("represent", settings, [chunk.fingerprint, model.card.weights_sha256])
        folder = self._layout.job(f"represent-{print_}")
        work = RepresentWork(
            folder=folder,
            chunk=self._folder(chunk),
            working=self._working(slide),
            model=model.reference,
            card=card,
            inference=self._inference,
            config=self._config.represent,
            storage=self._config.chunk,
        )
        job = self._job("represent", print_, work, (SlideFiles(folder).pixels,), [chunk])
        return replace(job, resource=work.resource, bulky=folder)

    def _register(self, before: list[Job], sides: tuple[Side, Side]) -> Job:
        row, section = self._pair.row, self._config.register_
        factor = reduction(*sides, section)
        # How long elastix may take changes no result that it had time for, see `done_jobs`; how much memory it may have
        # changes none but by the reduction that follows.
        numbers = section.model_dump(mode="json", exclude={"time_limit_s", "max_memory_gb"})
        settings = {"section": numbers, "reduction": factor, "registration": row.registration}
        inputs = [job.fingerprint for job in before]
        inputs.append(self._pair.file_digests.get("initial_transform", ""))
        landmarks = self._fitted_landmarks()
        inputs += [self._pair.file_digests[f"{side}_landmarks"] for side in ("fixed", "moving") if any(landmarks)]
        print_ = fingerprint("register", settings, inputs)
        folder = self._layout.job(f"register-{print_}")
        deformable, by_blocks = row.registration != "affine", row.registration == "blocks"
        parameters.require_stages(section, row.registration)  # tells now what is wrong with the user's files
        outlined = section.outlines and row.fixed_mask is None and row.moving_mask is None
        work = RegisterWork(folder, *sides, deformable, by_blocks, row.initial_transform, section, landmarks, outlined)
        return self._job("register", print_, work, (work.found,), before)

    def _fitted_landmarks(self) -> tuple[Path | None, Path | None]:
        """Return the landmarks that the fit shall heed."""
        row = self._pair.row
        if self._config.register_.second_metric != "landmarks":
            return None, None
        if row.fixed_landmarks is None or row.moving_landmarks is None:
            raise ConfigError(
                f"register.second_metric is landmarks, and the pair {self._pair.name} has none. Give it "
                "fixed_landmarks and moving_landmarks, or set register.second_metric=none"
            )
        return row.fixed_landmarks, row.moving_landmarks

    def _judge(self, before: list[Job], register: Job, sides: tuple[Side, Side]) -> Job:
        row, card = self._pair.row, None if self._pair.model is None else self._pair.model.card
        model = None if card is None else (card.name, card.slides)
        settings = {"section": self._config.judge, "model": model, "choice": self._pair.model_choice}
        landmarks = [self._pair.file_digests.get(f"{side}_landmarks", "") for side in ("fixed", "moving")]
        print_ = fingerprint("judge", settings, [register.fingerprint, *landmarks])
        folder = self._layout.job(f"judge-{print_}")
        work = JudgeWork(
            folder=folder,
            register=self._folder(register),
            fixed=sides[0],
            moving=sides[1],
            initial=row.initial_transform,
            landmarks=(row.fixed_landmarks, row.moving_landmarks),
            model=model,
            model_choice=self._pair.model_choice,
            registration=self._config.register_,
            config=self._config.judge,
        )
        return self._job("judge", print_, work, (JudgeFiles(folder).verdict,), [*before, register])

    def _warp(self, register: Job, judge: Job) -> Job:
        moving = self._pair.moving
        settings = {"section": self._config.warp, "fixed": str(self._pair.fixed.info.grid()), "pair": self._pair.name}
        source = [moving.spec.series, moving.spec.channel, moving.info.mpp_x, moving.info.mpp_y]
        print_ = fingerprint("warp", settings | {"moving": source}, [register.fingerprint, moving.digest])
        image = self._layout.pair(self._pair.name).aligned_zarr
        work = WarpWork(image, self._folder(register), moving.spec, moving.info, self._aligned, self._config.warp)
        bulky = None if self._config.export.ome_zarr else image
        job = self._job("warp", print_, work, (image,), [register, judge])
        job = replace(job, published=(image,), bulky=bulky)
        return job if self._config.export.warp_rejected or self._accepted else replace(job, gate=judge.key)

    @property
    def _aligned(self) -> Grid:
        return aligned_grid(self._pair.fixed.info.grid(), self._config.warp.mpp)

    def _export(self, register: Job, judge: Job, warp: list[Job]) -> Job:
        section, files = self._config.export, self._layout.pair(self._pair.name)
        self._require_8_bit_for_jpeg()
        settings = {"section": section, "pair": self._pair.name} | ({"accepted": True} if self._accepted else {})
        print_ = fingerprint("export", settings, [job.fingerprint for job in (register, judge, *warp)])
        work = ExportWork(
            pair_id=self._pair.name,
            layout=self._layout,
            register=self._folder(register),
            judge=self._folder(judge),
            info=self._pair.moving.info,
            fixed=self._pair.fixed.info.grid(),
            aligned=self._aligned,
            config=section,
            fingerprint=print_,
        )
        outputs = (files.transform_json, files.transform_itk, files.verdict)
        job = self._job("export", print_, work, outputs, [register, judge, *warp])
        return replace(job, published=(*outputs, files.elastix, files.dialects, files.aligned_tiff))

    def _require_8_bit_for_jpeg(self) -> None:
        section, dtype = self._config.export, self._pair.moving.info.dtype
        if section.ome_tiff and section.tiff_compression == "jpeg" and dtype != "uint8":
            raise ConfigError(
                f"the moving slide of the pair {self._pair.name} has {dtype} pixels, and JPEG holds 8-bit ones; set "
                "export.tiff_compression to deflate or zstd"
            )

    def _report(self, before: list[Job], warp: list[Job], sides: tuple[Side, Side]) -> Job:
        print_ = fingerprint("report", {"pair": self._pair.name}, [job.fingerprint for job in before])
        files = self._layout.pair(self._pair.name)
        *_, register, judge, _export = before
        keys = tuple(job.key for job in (*before, *warp))
        factor = reduction(*sides, self._config.register_)
        folders = self._folder(register), self._folder(judge)
        work = ReportWork(self._layout, self._pair, sides, factor, *folders, keys)
        job = self._job("report", print_, work, (files.report,))
        published = (files.report, files.thumbnail)
        return replace(job, settles=tuple(job.key for job in before), published=published)

    def _job(self, stage: str, print_: str, work: Work, outputs: tuple[Path, ...], inputs: Iterable[Job] = ()) -> Job:
        keys = tuple(job.key for job in inputs)
        return Job(stage, print_, work, Resource.CPU, (self._pair.name,), outputs, keys)

    def _margin(self, slide: Slide) -> int:
        """Return how far beyond the tissue pixels matter: as far as the network sees."""
        model = self._pair.model
        return 0 if model is None else field(model.card.modality(slide.modality).architecture).halo

    def _folder(self, job: Job) -> Path:
        return self._layout.job(job.key)

    def _working(self, slide: Slide) -> Working:
        return slide.working(self._pair.model, self._config.chunk)
