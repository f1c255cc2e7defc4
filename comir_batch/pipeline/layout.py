"""Every file name of a run directory; nothing else in the house makes one up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.execution.files import ClusterFiles

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The run directory.

    Attributes
    ----------
    root : Path
        Absolute.
    """

    root: Path

    @property
    def run_json(self) -> Path:
        """What the run is: resolved config, digests, versions, command line."""
        return self.root / "run.json"

    @property
    def by_hand(self) -> Path:
        """What people decided on single pairs, and set for them."""
        return self.root / "by_hand.json"

    @property
    def results_csv(self) -> Path:
        """A row a pair."""
        return self.root / "results.csv"

    @property
    def costs(self) -> Path:
        """What each stage was predicted to take, and took."""
        return self.root / "costs.json"

    @property
    def report(self) -> Path:
        """Index of the batch."""
        return self.root / "report.html"

    @property
    def records(self) -> Path:
        """Append-only record of what is done."""
        return self.root / "records.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the one driver."""
        return self.root / ".lock"

    @property
    def log(self) -> Path:
        """Events as JSON lines."""
        return self.root / "events.jsonl"

    @property
    def worker_logs(self) -> Path:
        """What worker processes print, a file each."""
        return self.root / "logs"

    @property
    def cluster(self) -> ClusterFiles:
        """What the driver and the workers of a cluster share."""
        return ClusterFiles(self.root, self.root / "cluster", self.worker_logs)

    @property
    def work(self) -> Path:
        """Stage outputs by fingerprint."""
        return self.root / "work"

    def job(self, key: str) -> Path:
        """Return the folder of one job, `<stage>-<fingerprint>`."""
        return self.work / key

    def pair(self, pair_id: str) -> PairFiles:
        """Return the published files of a pair."""
        return PairFiles(self.root / "pairs" / pair_id)


@dataclass(frozen=True, slots=True)
class PairFiles:
    """What is published for one pair."""

    folder: Path

    @property
    def transform_json(self) -> Path:
        """Our transform, lossless."""
        return self.folder / "transform.json"

    @property
    def transform_itk(self) -> Path:
        """The same as an ITK composite transform."""
        return self.folder / "transform.h5"

    @property
    def elastix(self) -> Path:
        """Parameter files as elastix wrote them."""
        return self.folder / "elastix"

    @property
    def dialects(self) -> Path:
        """Folder of the transform in other programs' dialects."""
        return self.folder / "transforms"

    @property
    def conventions(self) -> Path:
        """Direction, unit, pixel centre and error of each of them; written last."""
        return self.dialects / "conventions.json"

    @property
    def aligned_zarr(self) -> Path:
        """The moving slide on the fixed slide's grid, OME-Zarr; warp fills its arrays, export writes its metadata."""
        return self.folder / "aligned.ome.zarr"

    @property
    def image_metadata(self) -> Path:
        """What makes an image of the aligned arrays; written last."""
        return self.aligned_zarr / "zarr.json"

    @property
    def aligned_tiff(self) -> Path:
        """The same as pyramidal OME-TIFF."""
        return self.folder / "aligned.ome.tif"

    @property
    def verdict(self) -> Path:
        """Verdict, reasons and metrics."""
        return self.folder / "verdict.json"

    @property
    def report(self) -> Path:
        """The pair's page."""
        return self.folder / "report.html"

    @property
    def thumbnail(self) -> Path:
        """Small picture of the overlay, for the index."""
        return self.folder / "logs" / "thumbnail.npz"

    @property
    def logs(self) -> Path:
        """Folder of logs."""
        return self.folder / "logs"


@dataclass(frozen=True, slots=True)
class SlideFiles:
    """Outputs of chunk or represent, both keyed by slide."""

    folder: Path

    @property
    def pixels(self) -> Path:
        """Sharded Zarr array."""
        return self.folder / "pixels.zarr"

    @property
    def overview(self) -> Path:
        """Thumbnail and tissue mask of the slide (chunk only)."""
        return self.folder / "overview.npz"

    @property
    def ranges(self) -> Path:
        """Intensity ranges of the slide (represent only)."""
        return self.folder / "ranges.json"


@dataclass(frozen=True, slots=True)
class RegisterFiles:
    """Outputs of register."""

    folder: Path

    @property
    def transform(self) -> Path:
        """Our transform."""
        return self.folder / "transform.json"

    @property
    def unrefined(self) -> Path:
        """The transform before block refinement; absent without one."""
        return self.folder / "unrefined.json"

    def blocks(self, index: int) -> Path:
        """Offsets of the blocks of one region."""
        return self.block_folder / f"region-{index}.npz"

    @property
    def block_folder(self) -> Path:
        """Folder of what block refinement found; absent without one."""
        return self.folder / "blocks"

    @property
    def block_map(self) -> Path:
        """What became of each block, and by how much it moved."""
        return self.block_folder / "map.npz"

    @property
    def block_counts(self) -> Path:
        """The same in numbers."""
        return self.block_folder / "counts.json"

    @property
    def other(self) -> Path:
        """What the other view finds; absent with one view."""
        return self.folder / "other.json"

    @property
    def backward(self) -> Path:
        """What is found from the moving slide to the fixed one; absent if nothing is."""
        return self.folder / "backward.json"

    @property
    def summary(self) -> Path:
        """Candidates, winner, seconds."""
        return self.folder / "registration.json"

    @property
    def held_out(self) -> Path:
        """Tiles that no fit saw."""
        return self.folder / "held_out.npz"

    @property
    def elastix(self) -> Path:
        """Folder of elastix' own files."""
        return self.folder / "elastix"

    def fit(self, view: str) -> Path:
        """Those of the full fit in a view."""
        return self.elastix / view


@dataclass(frozen=True, slots=True)
class JudgeFiles:
    """Outputs of judge."""

    folder: Path

    @property
    def verdict(self) -> Path:
        """Verdict, reasons and metrics."""
        return self.folder / "verdict.json"

    @property
    def tiles(self) -> Path:
        """Similarity of each held-out tile before and after, and its estimated error."""
        return self.folder / "tiles.npz"


def level_path(image: Path, number: int) -> Path:
    """Return the array of one level of an OME-Zarr folder."""
    return image / str(number)


def in_run(path: Path, job: Path) -> str:
    """Return a path in a job's folder as records name it: relative to the run directory."""
    return path.relative_to(job.parents[1]).as_posix()
