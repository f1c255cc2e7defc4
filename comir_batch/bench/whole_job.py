"""A whole job, two slides in and an aligned slide out: comir-batch beside others, each as its user starts it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from comir_batch.bench.known_motion import move, write_pyramid
from comir_batch.bench.process_tree import Taken, run_measured
from comir_batch.bench.recovery import require_own_folder, tissue_points, write_manifest
from comir_batch.bench.throughput import describe_machine
from comir_batch.core.config import ChunkConfig
from comir_batch.core.errors import TaskError
from comir_batch.core.geometry import Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.io.transform_files import write_json as write_transform_json
from comir_batch.pipeline.files import make_folder, read_json, remove_tree, write_json, write_text
from comir_batch.pipeline.layout import Layout
from comir_batch.report import markdown
from comir_batch.representation.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.bench.known_motion import Motion
    from comir_batch.bench.recovery import AlignedPair
    from comir_batch.core.transform import Composite

COLUMNS = ("program", "CPU s", "wall s", "most memory (MB)", "error, median and 95th percentile (µm)", "says")
PEERS = ("wsireg", "valis")
_SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class WholeJobRequest:
    """What is asked.

    Attributes
    ----------
    pair : AlignedPair
        Real slides. The brightest of each pixel's channels is written as a slide of one channel, for everybody.
    motion : Motion
        How the moving one is moved.
    model : str
        That comir-batch runs with; "none" for the raw images. Others register at about its pixel size, too.
    out : Path
        Emptied first; takes the slides, the truth, everybody's results, whole-job.json and whole-job.md.
    peers : mapping of str to Path
        Of `PEERS`, the Python interpreter of the environment that each is installed in.
    repeats : int
        Runs of everybody, in turn.
    command : tuple of str
        What was typed.
    """

    pair: AlignedPair
    motion: Motion
    model: str
    out: Path
    peers: Mapping[str, Path]
    repeats: int = 1
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What a program took where it came to an end, medians but for the memory, and how far off it is.

    Attributes
    ----------
    program : str
        With its version.
    taken : Taken or None
        None if it always failed, and so are its errors.
    median_um, p95_um : float or None
        Of the last of those, on the tissue of the measured part: between where points were found and where they lie.
        Programs that send points only from the moving slide to the fixed one are held to that; the motion changes
        lengths by a few percent.
    says : str
        Its own verdict, and how often and why it failed.
    """

    program: str
    taken: Taken | None
    median_um: float | None = None
    p95_um: float | None = None
    says: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the row's words, by `COLUMNS`."""
        if self.taken is None:
            return (self.program, *["-"] * 4, self.says)
        taken = (self.taken.cpu_s, self.taken.wall_s, self.taken.peak_mb)
        return (self.program, *map("{:.0f}".format, taken), f"{self.median_um:.2f}, {self.p95_um:.2f}", self.says)


@dataclass(frozen=True, slots=True)
class _Found:
    """Distances in µm, and what the program says."""

    program: str
    distances: NDArray[np.float64]
    says: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """The slides that everybody gets, and the truth between them at ``(N, 2)`` points in µm."""

    fixed: Path
    moving: Path
    mpp: float
    truth: Composite
    points: NDArray[np.float64]


_Outcome: TypeAlias = "tuple[Taken, _Found] | TaskError"


def measure_whole_job(request: WholeJobRequest, tell: Callable[[str], None]) -> list[Row]:
    """Write the slides, let everybody register them, and write the table.

    Raises
    ------
    ConfigError
        If the folder holds something else.
    SlideError
        If a slide cannot be read.
    ModelError
        If there is no such model.
    """
    mpp = ChunkConfig().mpp if request.model == "none" else find_model(request.model).card.mpp
    require_own_folder(request.out, request.pair)
    remove_tree(request.out)
    make_folder(request.out)
    pair = _write_pair(request)
    reduction = max(1, round(mpp / pair.mpp))
    programs: dict[str, Callable[[Path], tuple[Taken, _Found]]] = {
        "comir-batch": lambda folder: _ours(request, pair, folder),
        **{name: _peer(name, request.peers[name], pair, reduction) for name in PEERS if name in request.peers},
    }
    outcomes: dict[str, list[_Outcome]] = {name: [] for name in programs}
    for number in range(request.repeats):
        for name, program in programs.items():
            tell(f"{name}, {number + 1} of {request.repeats}")
            outcomes[name].append(_outcome(program, request.out / name))
    rows = [_row(name, outcomes[name]) for name in programs]
    _write(request, rows)
    return rows


def _outcome(program: Callable[[Path], tuple[Taken, _Found]], folder: Path) -> _Outcome:
    remove_tree(folder)
    make_folder(folder)
    try:
        return program(folder)
    except TaskError as error:
        return error


def _row(name: str, outcomes: Sequence[_Outcome]) -> Row:
    done = [outcome for outcome in outcomes if not isinstance(outcome, TaskError)]
    failures = [str(outcome) for outcome in outcomes if isinstance(outcome, TaskError)]
    failure = f"failed {len(failures)} times of {len(outcomes)}: {failures[0]}" if failures else ""
    if not done:
        return Row(name, None, says=failure)
    taken = [each for each, _ in done]
    middle = Taken(
        median(each.cpu_s for each in taken), median(each.wall_s for each in taken), max(each.peak_mb for each in taken)
    )
    found = done[-1][1]
    halfway, most = np.percentile(found.distances, [50, 95])
    says = f"{found.says}; {failure}" if failure else found.says
    return Row(found.program, middle, float(halfway), float(most), says)


def _write_pair(request: WholeJobRequest) -> _Pair:
    slides = request.out / "slides"
    fixed, moving = slides / "fixed.ome.tif", slides / "moving.ome.tif"
    pixels, grid = _brightest(request.pair.fixed)
    write_pyramid(pixels, grid, fixed, (request.pair.modalities[0],))
    pixels, grid = _brightest(request.pair.moving)
    moved, moved_grid, truth = move(pixels, grid, request.motion)
    write_pyramid(moved, moved_grid, moving, (request.pair.modalities[1],))
    write_transform_json(truth, request.out / "truth.json")
    return _Pair(fixed, moving, grid.mpp_x, truth, tissue_points(request.pair.fixed, request.pair.measured))


def _brightest(slide: Path) -> tuple[NDArray[Any], Any]:
    """Return the largest value of each pixel's channels, (1, Y, X), and the grid."""
    with open_slide(SlideSpec(slide)) as source:
        grid = source.info.grid()
        pixels = source.read(Region(0, 0, grid.width, grid.height))
    return pixels.max(axis=0, keepdims=True), grid


def _ours(request: WholeJobRequest, pair: _Pair, folder: Path) -> tuple[Taken, _Found]:
    written = replace(request.pair, fixed=pair.fixed)
    manifest = write_manifest(written, pair.moving, folder)
    run = folder / "run"
    asked = ["run", str(manifest), "--out", str(run), "--model", request.model, "--only-ome-tiff"]
    taken = run_measured([sys.executable, "-m", "comir_batch", *asked], folder / "log.txt")
    files = Layout(run.resolve()).pair("known")
    found = read_transform_json(files.transform_json).map(pair.points)
    verdict = read_json(files.verdict)["verdict"]
    distances = np.linalg.norm(found - pair.truth.map(pair.points), axis=1)
    return taken, _Found(f"comir-batch run, model {request.model}", distances, f"verdict {verdict}")


def _peer(name: str, python: Path, pair: _Pair, reduction: int) -> Callable[[Path], tuple[Taken, _Found]]:
    def run(folder: Path) -> tuple[Taken, _Found]:
        results = folder / "results"
        results.mkdir()
        partners = pair.truth.map(pair.points)
        job = {
            "fixed": str(pair.fixed.resolve()),
            "moving": str(pair.moving.resolve()),
            "out": str(results.resolve()),
            "mpp": pair.mpp,
            "reduction": reduction,
            "points": pair.points.tolist(),
            "partners": partners.tolist(),
        }
        write_json(folder / "job.json", job)
        command = (python, _SCRIPTS / f"{name}_job.py", folder / "job.json")
        taken = run_measured([str(part) for part in command], folder / "log.txt")
        said = read_json(results / "found.json")
        found, true = (said["partners"], partners) if "partners" in said else (said["points"], pair.points)
        return taken, _Found(f"{name} {said['version']}", np.linalg.norm(np.array(found) - true, axis=1), "no verdict")

    return run


def _write(request: WholeJobRequest, rows: Sequence[Row]) -> None:
    machine = describe_machine(0)
    document = {"command": list(request.command), "machine": machine, "rows": [asdict(row) for row in rows]}
    write_json(request.out / "whole-job.json", document)
    write_text(request.out / "whole-job.md", markdown.table(COLUMNS, (row.cells() for row in rows)) + "\n")
