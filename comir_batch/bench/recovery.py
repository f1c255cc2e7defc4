"""How well a known motion is found again, by a run from the files alone and by plain elastix on the raw images."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.bench.known_motion import Errors, Motion, errors, move, write_pyramid
from comir_batch.core.errors import ConfigError, RegistrationError
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Region
from comir_batch.core.manifest import REQUIRED
from comir_batch.core.slide import SlideSpec
from comir_batch.core.transform import from_dict
from comir_batch.execution.start import start_executor
from comir_batch.execution.stop import StopRequest
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.io.transform_files import write_json as write_transform_json
from comir_batch.pipeline.files import read_json, write_json
from comir_batch.pipeline.graph import build_jobs
from comir_batch.pipeline.inference import inference
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.overview import Overview, make_overview
from comir_batch.pipeline.run import RunRequest, inspect_request, run
from comir_batch.pipeline.stages.register import RegisterWork
from comir_batch.pipeline.start import start_transform
from comir_batch.pipeline.views import load_grey
from comir_batch.registration import parameters
from comir_batch.registration.elastix_process import ElastixRequest, shared_process

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.transform import Composite
    from comir_batch.registration.images import RegistrationImage

    Images = tuple[RegistrationImage, RegistrationImage]

_POINT_SPACING_UM = 20.0
_TRUTH = "truth.json"


@dataclass(frozen=True)
class AlignedPair:
    """Two slides whose pixels lie on each other, so that the identity is the truth.

    Attributes
    ----------
    fixed, moving : Path
        The files.
    modalities : (str, str)
        Of the fixed and of the moving slide.
    measured : (float, float, float, float)
        The part where errors are measured, left, top, right and bottom as shares of the width and height: what no model
        has learnt from.
    """

    fixed: Path
    moving: Path
    modalities: tuple[str, str]
    measured: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Recovery:
    """One method's row: its errors, or why it has none."""

    method: str
    errors: Errors | None
    note: str = ""


def recover(pair: AlignedPair, motion: Motion, out: Path, config: RunConfig, subscriber: Subscriber) -> list[Recovery]:
    """Move one slide by a known motion, run the pair from its files alone, and measure; then let plain elastix try.

    Parameters
    ----------
    pair : AlignedPair
        Real slides.
    motion : Motion
        How the moving slide is moved.
    out : Path
        Emptied first; takes the moved slide, the manifest, the run and errors.json.
    config : RunConfig
        Of the run; intermediate results are kept for the baselines.
    subscriber : callable
        Hears of the progress.

    Returns
    -------
    list of Recovery
        Before any registration; the run; elastix with mutual information on the raw images from the start that the run
        found, and from both slides laid centre on centre.
    """
    require_own_folder(out, pair)
    shutil.rmtree(out, ignore_errors=True)
    truth, moved = _move(pair, motion, out)
    points = tissue_points(pair.fixed, pair.measured)
    manifest = write_manifest(pair, moved, out)
    layout = Layout(out.resolve() / "run")
    run(
        RunRequest(manifest, layout.root, config, keep_work=True),
        EventBus(subscriber),
        partial(start_executor, stop=StopRequest()),
    )
    files = layout.pair("known")
    published = read_json(files.verdict)
    found = read_transform_json(files.transform_json)
    rows = [Recovery("comir-batch run", errors(found, truth, points), f"verdict {published['verdict']}")]
    rows += _baselines(register_work(manifest, layout, config), out / "elastix", truth, points)
    write_json(out / "errors.json", [asdict(row) for row in rows])
    return rows


def require_own_folder(out: Path, pair: AlignedPair) -> None:
    """Refuse a folder that holds anything but an earlier measurement with a known truth; that may be removed.

    Raises
    ------
    ConfigError
        If it does, or if it holds a slide of the pair.
    """
    inside = [path for path in (pair.fixed, pair.moving) if out.resolve() in path.resolve().parents]
    if inside:
        raise ConfigError(f"the slide {inside[0]} lies in {out}, which would be emptied. Choose another --out")
    if out.exists() and any(out.iterdir()) and not (out / _TRUTH).is_file():
        raise ConfigError(f"{out} is not empty and holds no earlier measurement. Choose another --out")


def tissue_points(slide: Path, measured: tuple[float, float, float, float]) -> NDArray[np.float64]:
    """Return ``(N, 2)`` points in µm, 20 µm apart, on the tissue of a part of a slide."""
    with open_slide(SlideSpec(slide)) as source:
        overview, grid = make_overview(source), source.info.grid()
    low = grid.to_um([[measured[0] * grid.width, measured[1] * grid.height]])[0]
    high = grid.to_um([[measured[2] * grid.width, measured[3] * grid.height]])[0]
    x, y = (np.arange(low[k] + _POINT_SPACING_UM / 2, high[k], _POINT_SPACING_UM) for k in (0, 1))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return points[_on_tissue(overview, points)]


def _on_tissue(overview: Overview, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    columns, rows = overview.grid.to_pixels(points).round().astype(int).T
    height, width = overview.tissue.shape
    return np.asarray(overview.tissue[rows.clip(0, height - 1), columns.clip(0, width - 1)])


def _move(pair: AlignedPair, motion: Motion, out: Path) -> tuple[Composite, Path]:
    with open_slide(SlideSpec(pair.moving)) as source:
        grid, channels = source.info.grid(), source.info.channels
        pixels = source.read(Region(0, 0, grid.width, grid.height))
    moving, moving_grid, truth = move(pixels, grid, motion)
    path = out / "moved.ome.tif"
    write_pyramid(moving, moving_grid, path, channels)
    write_transform_json(truth, out / _TRUTH)
    return truth, path


def write_manifest(pair: AlignedPair, moved: Path, out: Path) -> Path:
    """Write the manifest of one pair, `known`, of the fixed slide and a moving one."""
    path = out / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(REQUIRED)
        table.writerow(["known", pair.fixed.resolve(), moved.resolve(), *pair.modalities])
    return path


def register_work(manifest: Path, layout: Layout, config: RunConfig) -> RegisterWork:
    """Return what the run's register job worked on."""
    pairs = inspect_request(manifest, config, skip_bad_rows=False).pairs
    jobs = build_jobs(pairs, config, layout, inference(config.execution, None))
    return next(job.work for job in jobs.values() if isinstance(job.work, RegisterWork))


def _baselines(work: RegisterWork, out: Path, truth: Composite, points: NDArray[np.float64]) -> list[Recovery]:
    """Run elastix on the same raw images at the same pixel size, with the same settings but for the held-out tiles."""
    images = load_grey(work.fixed, work.moving, work.reduction)
    centred = start_transform(work.fixed.working.grid, work.moving.working.grid, None)
    searched = from_dict(read_json(work.files.summary)["start"])
    rows = [Recovery("laid centre on centre, not registered", errors(centred, truth, points))]
    for name, start in (("the start that the run found", searched), ("centre on centre", centred)):
        method = f"elastix, mutual information on the raw images, from {name}"
        try:
            rows.append(Recovery(method, errors(_elastix(images, start, work, out), truth, points)))
        except RegistrationError as error:
            rows.append(Recovery(method, None, str(error)))
    return rows


def _elastix(images: Images, start: Composite, work: RegisterWork, out: Path) -> Composite:
    fixed, moving = images
    levels = parameters.resolutions(fixed.grid)
    few = (make("mi", work.config, fixed.grid, levels) for make in (parameters.rigid, parameters.affine))
    stages = (*few, parameters.bspline("mi", work.config, fixed.grid, levels))
    shutil.rmtree(out, ignore_errors=True)
    request = ElastixRequest(fixed, moving, stages, start, out, work.config.time_limit_s)
    return shared_process(work.config.threads).register(request).transform
