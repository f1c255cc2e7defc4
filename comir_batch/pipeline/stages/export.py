"""export: publishes a pair's transforms, its verdict and, unless it is rejected, its aligned images."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.task import Task
from comir_batch.core.verdict import Verdict
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.io.transform_files import write_itk
from comir_batch.io.zarr_array import ZarrArray, sweep_leftovers
from comir_batch.pipeline import cost
from comir_batch.pipeline.by_hand import read_by_hand, standing
from comir_batch.pipeline.conversion import write_sidecars
from comir_batch.pipeline.files import read_json, remove_tree, write_bytes, write_json
from comir_batch.pipeline.job import Estimate
from comir_batch.pipeline.layout import JudgeFiles, RegisterFiles, level_path
from comir_batch.pipeline.records import FILES
from comir_batch.pipeline.stages.chunk import BASE_MB
from comir_batch.pipeline.stages.warp import aligned_levels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from comir_batch.core.config import ExportConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import SlideInfo
    from comir_batch.core.transform import Composite
    from comir_batch.pipeline.layout import Layout, PairFiles

_TIFF_MB = 600


@dataclass(frozen=True, slots=True)
class ExportWork:
    """What publishing one pair takes.

    Attributes
    ----------
    fixed : Grid
        Level 0 of the fixed slide, whose pixels transforms are written for.
    aligned : Grid
        Pixels of the aligned image.
    fingerprint : str
        Stands in the image's attributes, so that a published image can be traced to what made it.
    """

    pair_id: str
    layout: Layout
    register: Path
    judge: Path
    info: SlideInfo
    fixed: Grid
    aligned: Grid
    config: ExportConfig
    fingerprint: str

    @property
    def pair(self) -> PairFiles:
        """Where the results go."""
        return self.layout.pair(self.pair_id)

    @property
    def withheld(self) -> bool:
        """Whether there are no aligned images: none is wanted, or the pair is rejected, known once it is judged."""
        if not self.config.images:
            return True
        if self.config.warp_rejected or read_json(JudgeFiles(self.judge).verdict)["verdict"] != "reject":
            return False
        decision = standing(read_by_hand(self.layout), self.pair_id, RegisterFiles(self.register).transform)
        return decision is None or decision.verdict is not Verdict.ACCEPT

    def estimate(self) -> Estimate:
        """Return what it will take; the OME-Zarr is there already."""
        pixels = sum(grid.width * grid.height for grid in aligned_levels(self.aligned)) if self.config.ome_tiff else 0
        tiff_mb, memory_mb = pixels * self.info.pixel_bytes / 1e6, BASE_MB + _TIFF_MB * self.config.ome_tiff
        return Estimate(
            tasks=1 + self.config.ome_tiff,
            memory_mb=memory_mb,
            disk_mb=cost.PUBLISH_MB + tiff_mb,
            read_mb=tiff_mb,
            cpu_s=cost.export_s(tiff_mb),
        )

    def phase(self, number: int, key: str) -> Sequence[Task] | None:
        """First the transforms, the verdict and the OME-Zarr's metadata, then the OME-TIFF."""
        if number == 0:
            return [Task(f"{key}-publish", publish, self, memory_mb=BASE_MB)]
        if number == 1 and self.config.ome_tiff and not self.withheld:
            return [Task(f"{key}-tiff", write_tiff, self, memory_mb=BASE_MB + _TIFF_MB)]
        return None


def publish(work: ExportWork) -> dict[str, Any]:
    """Publish everything but the OME-TIFF; runs on a worker, and may be run again after a kill at any point."""
    work.pair.folder.mkdir(parents=True, exist_ok=True)
    _publish_transforms(work)
    work.pair.aligned_tiff.unlink(missing_ok=True)
    image = _publish_zarr(work)
    write_bytes(work.pair.verdict, JudgeFiles(work.judge).verdict.read_bytes())
    return _files(work, work.pair.elastix, *([work.pair.conventions] if work.config.dialects else []), *image)


def _publish_zarr(work: ExportWork) -> list[Path]:
    """Make an image of the warped arrays, or leave them without what makes them one; return what was made."""
    if work.withheld:
        remove_tree(work.pair.aligned_zarr)
        return []
    if not work.config.ome_zarr:  # they go when the OME-TIFF is there
        work.pair.image_metadata.unlink(missing_ok=True)
        return []
    _complete_image(work)
    return [work.pair.image_metadata]


def write_tiff(work: ExportWork) -> dict[str, Any]:
    """Stream the published OME-Zarr into a pyramidal OME-TIFF; runs on a worker."""
    levels = [ZarrArray.open(level_path(work.pair.aligned_zarr, k)) for k in range(len(aligned_levels(work.aligned)))]
    image = TiffImage(work.pair_id, work.aligned, work.info.channels, work.info.is_rgb)
    write_ome_tiff(levels, work.pair.aligned_tiff, image, work.config.tiff_compression)
    return _files(work, work.pair.aligned_tiff)


def _files(work: ExportWork, *paths: Path) -> dict[str, Any]:
    return {FILES: [path.relative_to(work.layout.root).as_posix() for path in paths]}


def _publish_transforms(work: ExportWork) -> None:
    source = RegisterFiles(work.register)
    write_bytes(work.pair.transform_json, source.transform.read_bytes())
    transform = read_transform_json(source.transform)
    write_itk(transform, work.pair.transform_itk)
    fit = source.fit(read_json(source.summary)["view"])
    _copy_folder(fit, work.pair.elastix, "*Transform*.txt")
    _copy_folder(fit, work.pair.logs, "*.log")
    remove_tree(work.pair.dialects)
    if work.config.dialects:
        _publish_dialects(transform, work)


def _publish_dialects(transform: Composite, work: ExportWork) -> None:
    grids = {"fixed": work.fixed, "moving": work.info.grid()}
    work.pair.dialects.mkdir()
    write_json(
        work.pair.conventions, write_sidecars(transform, work.config.dialects, work.pair.dialects, grids.__getitem__)
    )


def _copy_folder(source: Path, target: Path, pattern: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(source.glob(pattern)):
        write_bytes(target / path.name, path.read_bytes())


def _complete_image(work: ExportWork) -> None:
    """Write the metadata that makes an image of the warped arrays."""
    levels = aligned_levels(work.aligned)
    for number in range(len(levels)):
        sweep_leftovers(level_path(work.pair.aligned_zarr, number))
    info = work.info
    attributes = {"comir_batch": {"fingerprint": work.fingerprint}}
    image = NgffImage(work.pair_id, levels, info.channels, info.dtype, is_rgb=info.is_rgb, attributes=attributes)
    write_ngff_metadata(work.pair.aligned_zarr, image)
