"""What a report is drawn from: records and images that others computed; nothing here opens a file or judges.

All images of a pair lie on one grid, the page's ``grid``, in the fixed slide's µm. An image is ``(Y, X, 3)`` uint8 RGB,
or ``(Y, X)`` uint8 or float in 0..1. Maps may be coarser than the grid, but cover the same area.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.core.slide import Photometric  # noqa: TC001  dataclass fields keep their types readable at run time
from comir_batch.core.verdict import Verdict  # noqa: TC001

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

Metrics = dict[str, float | str | None]


@dataclass(frozen=True, slots=True)
class SlideFacts:
    """One slide of the pair, in words.

    Attributes
    ----------
    file_name, modality : str
        As the manifest has them; untrusted text.
    width, height : int
        Level-0 pixels; 0 where they are not known.
    mpp : float or None
        Level-0 pixel size in µm.
    photometric : {"brightfield", "dark"}
        Whether empty glass is bright; overlays show brightfield images inverted.
    details : str
        Anything else worth a line: channel, series, reader.
    """

    file_name: str
    modality: str
    width: int = 0
    height: int = 0
    mpp: float | None = None
    photometric: Photometric = "dark"
    details: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One sight of the pair on the page's grid: the slides themselves, or their CoMIRs.

    Attributes
    ----------
    fixed, before, after : image
        The fixed slide; the moving slide at the start (centred, not registered); the moving slide warped.

    Raises
    ------
    ValueError
        If the images differ in height or width.
    """

    fixed: NDArray[Any]
    before: NDArray[Any] | None = None
    after: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        for name, image in (("before", self.before), ("after", self.after)):
            if image is not None and image.shape[:2] != self.fixed.shape[:2]:
                raise ValueError(
                    f"{name} has {image.shape[:2]} pixels (height, width), the fixed image {self.fixed.shape[:2]}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Fields over the fixed slide, ``(Y, X)`` float; NaN where there is nothing to say (outside tissue, not held out).

    Attributes
    ----------
    displacement_um : array or None
        Length of the whole displacement in µm.
    nonrigid_um : array or None
        Length of what the transform does beyond its affine part, in µm.
    jacobian : array or None
        Determinant of the Jacobian, relative to the affine part or not as ``jacobian_note`` says; <= 0 is folded.
    jacobian_note : str
        One sentence about it, shown below the map.
    tiles_before, tiles_after : array or None
        Similarity of each held-out tile at the start and after registration.
    similarity : str
        What the tiles' similarity is, for example "normalised correlation of the CoMIRs".
    cells_per_tile : int
        Elements of the tile arrays that one tile covers.
    tiles_error_um : array or None
        Distance of each held-out tile from where it fits best, in µm.
    blocks_um : array or None
        By how much the blocks that refined the transform were moved, in µm.
    blocks_lost : array or None
        What became of each block that was looked for: 0 used, 1 left out as an outlier, 2 not found.
    """

    displacement_um: NDArray[np.floating] | None = None
    nonrigid_um: NDArray[np.floating] | None = None
    jacobian: NDArray[np.floating] | None = None
    jacobian_note: str = ""
    tiles_before: NDArray[np.floating] | None = None
    tiles_after: NDArray[np.floating] | None = None
    similarity: str = "similarity"
    cells_per_tile: int = 1
    tiles_error_um: NDArray[np.floating] | None = None
    blocks_um: NDArray[np.floating] | None = None
    blocks_lost: NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WorstPlace:
    """A place where the slides agree least after registration.

    Attributes
    ----------
    x_um, y_um : float
        Its centre in the fixed slide's µm.
    similarity : float
        There, in the unit of ``Maps.similarity``.
    fixed, after : image
        Crops of the fixed and the warped moving slide, of one size.
    width_um : float
        What the crops are wide.
    fixed_photometric, moving_photometric : {"brightfield", "dark"}
        Brightfield crops are inverted in their overlay; CoMIRs are dark.
    """

    x_um: float
    y_um: float
    similarity: float
    fixed: NDArray[Any]
    after: NDArray[Any]
    width_um: float
    fixed_photometric: Photometric = "dark"
    moving_photometric: Photometric = "dark"


@dataclass(frozen=True, slots=True)
class StageCost:
    """Wall seconds and highest resident memory of one stage; `note` is for example "from an earlier run"."""

    stage: str
    seconds: float
    peak_mb: int = 0
    note: str = ""


class Compared(NamedTuple):
    """A figure as it was predicted, and as it was taken."""

    predicted: float
    taken: float

    @property
    def ratio(self) -> float | None:
        """Taken over predicted; None where either is nothing."""
        return self.taken / self.predicted if self.predicted > 0 and self.taken > 0 else None


@dataclass(frozen=True, slots=True)
class StageComparison:
    """One stage over all pairs, as predicted and as taken.

    Attributes
    ----------
    done, planned : int
        Jobs (slides or pairs) that the figures are of, and all of the run.
    cpu_s : Compared or None
        CPU time; None on a GPU, whose time is not predicted.
    worker_s : float
        Wall time of the tasks, added up.
    memory_mb : Compared
        Of the largest task, in MB.
    held_mb : float
        What of it the worker had before that task.
    written_mb : Compared
        Before compression, and as it lies on the disk.
    dropped_s : float
        CPU time of work that was begun anew or is not finished.
    """

    stage: str
    done: int
    planned: int
    cpu_s: Compared | None
    worker_s: float
    memory_mb: Compared
    held_mb: float
    written_mb: Compared
    dropped_s: float = 0.0


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """One start that the global search found; `scores` maps a score's name to its value."""

    angle_deg: float
    mirrored: bool
    scores: dict[str, float]
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """An output beside the page; `path` is relative to the page, with '/' between its parts, not yet quoted."""

    label: str
    path: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """How to make this again."""

    version: str = ""
    command: str = ""
    config_digest: str = ""
    seeds: dict[str, int] = field(default_factory=dict)
    finished: str = ""
    host: str = ""
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class PairPage:
    """Everything that the page of one pair shows; a pair that crashed has a verdict `error`, reasons and a log tail.

    Attributes
    ----------
    reasons : tuple of str
        Sentences of the judge, or the message of the error.
    metrics : dict
        Numbers behind the verdict; names that end in a unit (`_um`, `_px`, `_share`, `_deg`, `_z`) are shown with it.
    model, model_choice : str
        Which model represented the slides (`none` for raw images), and how it was chosen.
    assumed : tuple of str
        Sentences about what was not read from the files.
    grid : Grid or None
        Grid of the images of ``slides`` and ``comirs``; needed where they are given.
    slides, comirs : View or None
        The images. Slides are stretched for display; CoMIRs share one scale and are shown as they are.
    log_tail : str
        Last lines of the pair's log.
    index_path : str
        Relative path of the batch page; empty for none.

    Raises
    ------
    ValueError
        If there are images but no grid, or the grid has another size.
    """

    pair_id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    fixed: SlideFacts
    moving: SlideFacts
    metrics: Metrics = field(default_factory=dict)
    model: str = ""
    model_choice: str = ""
    assumed: tuple[str, ...] = ()
    grid: Grid | None = None
    slides: View | None = None
    comirs: View | None = None
    maps: Maps = field(default_factory=Maps)
    worst: tuple[WorstPlace, ...] = ()
    costs: tuple[StageCost, ...] = ()
    candidates: tuple[CandidateRow, ...] = ()
    links: tuple[Link, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
    log_tail: str = ""
    index_path: str = ""

    def __post_init__(self) -> None:
        for view in (self.slides, self.comirs):
            if view is None:
                continue
            if self.grid is None or self.grid.shape != view.fixed.shape[:2]:
                shape = None if self.grid is None else self.grid.shape
                raise ValueError(f"images of {view.fixed.shape[:2]} pixels (height, width) on a grid of {shape}")


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """One pair in the index; `path` is that of its page relative to the index, empty for none."""

    pair_id: str
    verdict: Verdict
    reasons: tuple[str, ...]
    path: str = ""
    metrics: Metrics = field(default_factory=dict)
    seconds: float = 0.0
    peak_mb: int = 0
    thumbnail: NDArray[Any] | None = None
    modalities: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """What the index says of the whole run.

    Attributes
    ----------
    title : str
        Name of the run, usually of its folder.
    columns : tuple of str
        Metrics that get a column, in order.
    seconds : float
        Wall time of the run, all its starts together; less than the sum over pairs where they ran side by side.
    costs : tuple of StageCost
        Each stage over all pairs: summed seconds and highest memory.
    comparisons : tuple of StageComparison
        Each stage over all pairs: what the plan said, and what it took.
    notes : tuple of str
        Sentences for the reader, for example how many rows were skipped and why.
    links : tuple of Link
        results.csv, run.json.
    """

    title: str
    columns: tuple[str, ...] = ()
    seconds: float = 0.0
    costs: tuple[StageCost, ...] = ()
    comparisons: tuple[StageComparison, ...] = ()
    notes: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)
