"""What registering one pair costs, step by step and size by size, beside elastix alone on the same arrays."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cv2
import numpy as np
import psutil

from comir_batch.bench.known_motion import turned
from comir_batch.bench.ours import Clock
from comir_batch.bench.recovery import register_work, write_manifest
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Grid
from comir_batch.execution.start import start_executor
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.pipeline.views import load_views
from comir_batch.registration import parameters
from comir_batch.registration.elastix_process import ElastixRequest, shared_process
from comir_batch.registration.evened import raw_view
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage, seconded
from comir_batch.registration.starts import Starts, final_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from comir_batch.bench.recovery import AlignedPair
    from comir_batch.core.config import RegisterConfig, RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.core.transform import Affine, Composite
    from comir_batch.execution.stop import StopRequest
    from comir_batch.registration.images import View
    from comir_batch.registration.starts import Start

Result = TypeVar("Result")

STEPS = ("search and starts", "forward fit", "elastix alone", "fits to compare with")
_ANGLE_DEG, _SHIFT = 10.0, 0.02  # of the moving image; the shift as a share of the side
_SAMPLED_S = 0.02
_WARM_SIDE = 256  # of images that are registered unmeasured, so that elastix' process is there


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step takes.

    Attributes
    ----------
    side : int
        Of the images, in pixels.
    step : str
        One of `STEPS`.
    cpu_s, wall_s : float
        Medians over the repeats; CPU seconds of this process and of elastix'.
    peak_mb : float
        Most memory of both processes during the step, 10^6 bytes, over all repeats; it includes the images.
    error_um : float or None
        Median error of the transform that the step found last, at the pixels of a lattice; None where it finds none.
    """

    side: int
    step: str
    cpu_s: float
    wall_s: float
    peak_mb: float
    error_um: float | None


class Spent(NamedTuple):
    """CPU and wall seconds, and most memory in MB."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def measure_cost(
    pair: AlignedPair,
    sides: Sequence[int],
    repeats: int,
    out: Path,
    config: RunConfig,
    stop: StopRequest,
    subscriber: Subscriber,
) -> list[StepCost]:
    """Represent an aligned pair, lay it out in mirrored tiles to each size, turn the moving one, and register.

    Parameters
    ----------
    pair : AlignedPair
        Real slides.
    sides : sequence of int
        Pixels of the square images; their layout is made up, their pixels are the pair's.
    repeats : int
        Of every step, in turn; each time elastix alone goes before or after the forward fit. Medians count.
    out : Path
        Takes a run and elastix' files.
    config : RunConfig
        Settings.
    stop : StopRequest
        Ends the run.
    subscriber : callable
        Hears of the run's progress.
    """
    out.mkdir(parents=True, exist_ok=True)
    manifest = write_manifest(pair, pair.moving, out)
    layout = Layout(out.resolve() / "run")
    for target in ("chunk", "represent"):  # without a model there is nothing to represent, nor to chunk for that
        request = RunRequest(manifest, layout.root, config, target, keep_work=True)
        run(request, EventBus(subscriber), partial(start_executor, stop=stop))
    work = register_work(manifest, layout, config)
    views = load_views(work.fixed, work.moving, work.reduction)
    _Costing(_laid_out(views, _WARM_SIDE), config.register_, out / "elastix" / "warm").repeat(alone_first=False)
    return [
        cost
        for side in sides
        for cost in _costs(_laid_out(views, side), config.register_, repeats, out / "elastix" / str(side))
    ]


def _laid_out(views: Sequence[View], side: int) -> list[View]:
    """Return square views of mirrored tiles of the given ones, the moving ones turned and shifted."""
    truth = _truth(_grid(views[0], side))

    def laid_out(view: View) -> View:
        fixed, moving = (_tiled(image.as_scanned(), side) for image in (view.fixed, view.moving))
        images = fixed, _moved(moving, truth)
        return raw_view(*images) if view.name == "raw" else replace(view, fixed=images[0], moving=images[1])

    return list(map(laid_out, views))


def _grid(view: View, side: int) -> Grid:
    return Grid(side, side, view.fixed.grid.mpp_x, view.fixed.grid.mpp_y)


def _truth(grid: Grid) -> Affine:
    return turned(grid, _ANGLE_DEG, _SHIFT)


def _tiled(image: RegistrationImage, side: int) -> RegistrationImage:
    height, width = image.grid.shape
    margins = ((0, max(side - height, 0)), (0, max(side - width, 0)))
    pixels = np.pad(image.pixels, margins, mode="symmetric")[:side, :side].astype(np.float32)
    mask = np.pad(image.mask, margins, mode="symmetric")[:side, :side].astype(np.bool_)
    return RegistrationImage(pixels, mask, Grid(side, side, image.grid.mpp_x, image.grid.mpp_y))


def _moved(image: RegistrationImage, truth: Affine) -> RegistrationImage:
    """Return the image that shows at ``truth.map(x)`` what this one shows at ``x``."""
    grid, back = image.grid, truth.inverse()
    ends = grid.to_pixels(back.map(grid.to_um([[0, 0], [1, 0], [0, 1]])))
    matrix = np.column_stack([ends[1] - ends[0], ends[2] - ends[0], ends[0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels, mask = (
        np.asarray(cv2.warpAffine(plane, matrix, (grid.width, grid.height), flags=flags), dtype=np.float32)
        for plane in (image.pixels, image.mask.astype(np.float32))
    )
    return RegistrationImage(pixels, mask > 0.99, grid)


class _Costing:
    """Registers two views step by step, and keeps what each step spends and finds."""

    def __init__(self, views: Sequence[View], config: RegisterConfig, folder: Path) -> None:
        self._views, self._config, self._folder = views, config, folder
        self._truth = _truth(views[0].fixed.grid)
        self._points = views[0].fixed.grid.to_um(np.argwhere(views[0].fixed.mask)[::9973, ::-1])
        self.spent: dict[str, list[Spent]] = {step: [] for step in STEPS}
        self.errors: dict[str, float | None] = dict.fromkeys(STEPS)

    def repeat(self, *, alone_first: bool) -> None:
        """Do every step once."""
        starts, best = self._step("search and starts", self._search)
        view, others = final_view(seconded(starts.fitted, self._config.second_metric), best, self._config)
        fits: list[tuple[str, Callable[[], Composite]]] = [
            ("forward fit", partial(self._forward, view, best.transform)),
            ("elastix alone", partial(self._alone, self._whole(view), best.transform)),
        ]
        for name, fit in reversed(fits) if alone_first else fits:
            found = self._step(name, fit)
            distances = np.linalg.norm(found.map(self._points) - self._truth.map(self._points), axis=1)
            self.errors[name] = float(np.median(distances))
        self._step("fits to compare with", partial(self._checks, view, others, best.transform))

    def _search(self) -> tuple[Starts, Start]:
        starts = Starts(self._views, self._config)
        return starts, starts.found()[0]

    def _whole(self, view: View) -> View:
        """Return a view with its held-out tiles, which whoever takes elastix alone has no need to leave out."""
        scanned = [each.as_scanned() for each in self._views]
        return next(each for each in seconded(scanned, self._config.second_metric) if each.name == view.name)

    def _forward(self, view: View, start: Composite) -> Composite:
        return Fitter(self._config).full(view, start, self._folder / "fit", deformable=True).transform

    def _alone(self, view: View, start: Composite) -> Composite:
        """Run all of the presets' stages at all of their resolutions, as one call of elastix."""
        levels = parameters.resolutions(view.fixed.grid)
        makers = (parameters.rigid, parameters.affine, parameters.bspline)
        stages = tuple(make(view.metric, self._config, view.fixed.grid, levels, view.second) for make in makers)
        limit = self._config.time_limit_s
        beside = None if view.beside is None else (view.beside.fixed, view.beside.moving)
        request = ElastixRequest(view.fixed, view.moving, stages, start, self._folder / "alone", limit, beside)
        return shared_process(self._config.threads).register(request).transform

    def _checks(self, view: View, others: Sequence[View], start: Composite) -> None:
        fitter = Fitter(self._config)
        for other in others:
            fitter.check(other, start, self._folder / "other")
        fitter.backward(view, start, self._folder / "backward")

    def _step(self, name: str, work: Callable[[], Result]) -> Result:
        clock, began = Clock(self._config.threads), time.perf_counter()
        with clock.measuring(name), _peak_memory(self._config.threads) as peak:
            found = work()
        self.spent[name].append(Spent(clock.total([name]), time.perf_counter() - began, peak[0] / 1e6))
        return found


def _costs(views: Sequence[View], config: RegisterConfig, repeats: int, folder: Path) -> list[StepCost]:
    costing = _Costing(views, config, folder)
    for number in range(repeats):
        costing.repeat(alone_first=bool(number % 2))
    side = views[0].fixed.grid.width
    return [_median_cost(side, step, costing.spent[step], costing.errors[step]) for step in STEPS]


def _median_cost(side: int, step: str, spent: Sequence[Spent], error_um: float | None) -> StepCost:
    cpu, wall, peak = zip(*spent, strict=True)
    return StepCost(side, step, median(cpu), median(wall), max(peak), error_um)


@contextmanager
def _peak_memory(threads: int) -> Iterator[list[int]]:
    """Give a list with the most bytes that this process and elastix' hold meanwhile, looked at every 20 ms."""
    peak, done, own = [0], threading.Event(), psutil.Process()

    def look() -> None:
        while True:
            pid = shared_process(threads).pid
            children = [psutil.Process(pid)] if pid else []
            peak[0] = max(peak[0], sum(process.memory_info().rss for process in (own, *children)))
            if done.wait(_SAMPLED_S):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def cost_cells(costs: Sequence[StepCost]) -> list[tuple[str, ...]]:
    """Return a table's rows: each step, and after those of a size the whole registration without elastix alone."""
    rows: list[tuple[str, ...]] = []
    for cost in costs:
        error = "-" if cost.error_um is None else f"{cost.error_um:.2f}"
        rows.append((*_cells(cost.side, cost.step, cost), error))
        if cost.step == STEPS[-1]:
            ours = [each for each in costs if each.side == cost.side and each.step != "elastix alone"]
            peak = max(each.peak_mb for each in ours)
            whole = Spent(sum(each.cpu_s for each in ours), sum(each.wall_s for each in ours), peak)
            rows.append((*_cells(cost.side, "whole registration", whole), "-"))
    return rows


def _cells(side: int, step: str, cost: Spent | StepCost) -> tuple[str, ...]:
    return str(side), step, f"{cost.cpu_s:.1f}", f"{cost.wall_s:.1f}", f"{cost.peak_mb:.0f}"
