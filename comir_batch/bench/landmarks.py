"""How near landmarks come to each other: by a run from the files alone, and by others on the same raw images."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.bench.baselines import elastix_affine, sift_affine
from comir_batch.core.errors import ConfigError, RegistrationError
from comir_batch.core.events import EventBus
from comir_batch.execution.start import start_executor
from comir_batch.io.tables import read_points
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline.files import read_json, write_json
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.layout import JudgeFiles, Layout, RegisterFiles
from comir_batch.pipeline.run import RunRequest, inspect_request, run
from comir_batch.pipeline.stages.judge import JudgeWork
from comir_batch.pipeline.start import start_transform
from comir_batch.pipeline.views import load_grey, reduction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.transform import Composite
    from comir_batch.execution.stop import StopRequest
    from comir_batch.registration.images import RegistrationImage

    Images = tuple[RegistrationImage, RegistrationImage]


@dataclass(frozen=True, slots=True)
class Landed:
    """How far the landmarks of a pair lie from their partners.

    Attributes
    ----------
    pair, method : str
        Whose they are, and what laid them there.
    count : int
        Number of landmarks.
    median, p90 : float or None
        Of their distances as shares of the moving slide's diagonal (relative target registration error; Borovec et al.,
        IEEE TMI 2020); None where there is no transform.
    improved : float or None
        Share of the landmarks that lie nearer than at the start.
    note : str
        The verdict, or why there is no transform.
    """

    pair: str
    method: str
    count: int
    median: float | None = None
    p90: float | None = None
    improved: float | None = None
    note: str = ""


def measure_landmarks(
    manifest: Path, out: Path, config: RunConfig, stop: StopRequest, subscriber: Subscriber
) -> list[Landed]:
    """Run the pairs from their files alone, let others register the same raw images, and measure at the landmarks.

    Parameters
    ----------
    manifest : Path
        Pairs, of which those with landmarks of both slides are measured; nothing else reads these.
    out : Path
        Takes the run, which is resumed, and ``landmarks.json``.
    config : RunConfig
        Of the run; intermediate results are kept for the others.
    stop : StopRequest
        Stops the run.
    subscriber : callable
        Hears of the progress.

    Returns
    -------
    list of Landed
        Of each pair: the start, elastix and SIFT on the raw images, both affine, and the run.

    Raises
    ------
    ConfigError
        If no pair has landmarks.
    """
    pairs = inspect_request(manifest, config, skip_bad_rows=False).pairs
    names = {pair.name for pair in pairs if pair.row.fixed_landmarks and pair.row.moving_landmarks}
    if not names:
        raise ConfigError(f"no pair of {manifest} has fixed_landmarks and moving_landmarks; give CSVs of both")
    layout = Layout(out.resolve() / "run")
    run(
        RunRequest(manifest, layout.root, config, keep_work=True),
        EventBus(subscriber),
        partial(start_executor, stop=stop),
    )
    jobs = build_jobs(pairs, config, layout, inference(config.execution, None))
    works = [(job.pairs[0], job.work) for job in jobs.values() if isinstance(job.work, JudgeWork)]
    rows = [row for name, work in works if name in names for row in _measured(name, work, out / "others")]
    write_json(out / "landmarks.json", [asdict(row) for row in rows])
    return rows


def _measured(name: str, work: JudgeWork, folder: Path) -> list[Landed]:
    start = start_transform(work.fixed.working.grid, work.moving.working.grid, work.initial)
    images = load_grey(work.fixed, work.moving, reduction(work.fixed, work.moving, work.registration))
    threads = work.registration.threads
    methods: dict[str, Callable[[], tuple[Composite | None, str]]] = {
        "start": lambda: (start, ""),
        "elastix, MI, affine, on raw images": lambda: _elastix(images, start, threads, folder),
        "SIFT, affine, on raw images": lambda: _sift(images),
        "comir-batch run": lambda: _ours(work),
    }
    points = _Points(work, start)
    return [points.landed(name, method, *register()) for method, register in methods.items()]


class _Points:
    """Landmarks of a pair, and where they lie at the start."""

    def __init__(self, work: JudgeWork, start: Composite) -> None:
        grids = [side.working.info.grid() for side in (work.fixed, work.moving)]
        paths = [path for path in work.landmarks if path]
        self._fixed, self._moving = (read_points(path, grid) for path, grid in zip(paths, grids, strict=True))
        self._diagonal = math.hypot(*grids[1].size_um)
        self._before = self._errors(start)

    def _errors(self, transform: Composite) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(transform.map(self._fixed) - self._moving, axis=1) / self._diagonal)

    def landed(self, pair: str, method: str, transform: Composite | None, note: str) -> Landed:
        if transform is None:
            return Landed(pair, method, len(self._fixed), note=note)
        errors = self._errors(transform)
        median, p90 = (float(value) for value in np.percentile(errors, [50, 90]))
        return Landed(pair, method, len(errors), median, p90, float((errors < self._before).mean()), note)


def _elastix(images: Images, start: Composite, threads: int, folder: Path) -> tuple[Composite | None, str]:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return elastix_affine(*images, start, threads, folder), ""
    except RegistrationError as error:
        return None, str(error)


def _sift(images: Images) -> tuple[Composite | None, str]:
    found = sift_affine(*images)
    return found, "" if found else "too few matches agree"


def _ours(work: JudgeWork) -> tuple[Composite | None, str]:
    found, verdict = RegisterFiles(work.register).transform, JudgeFiles(work.folder).verdict
    if not (found.exists() and verdict.exists()):
        return None, "in error, see the run"
    return read_transform_json(found), f"verdict {read_json(verdict)['verdict']}"


def landmark_cells(rows: Sequence[Landed]) -> list[tuple[str, ...]]:
    """Return the rows of the table as text: pair, method, landmarks, median and 90th percentile, improved, note."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f}"

    return [
        (row.pair, row.method, str(row.count), percent(row.median), percent(row.p90), percent(row.improved), row.note)
        for row in rows
    ]
