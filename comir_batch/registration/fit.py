"""Fits of one view by elastix: a quick one for a start, and the full one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration import parameters
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.elastix_process import ElastixRequest, shared_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from comir_batch.core.config import RegisterConfig
    from comir_batch.core.geometry import Grid
    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.images import RegistrationImage, View

_START_SIDES = 2  # starts are refined on images of so many times the search's side
_FINE_LEVELS = 3
_LEAST_SPACING_PX = 16


class Fitter:
    """Fits the views of one pair with elastix.

    Parameters
    ----------
    config : RegisterConfig
        Settings.
    folder : Path
        Takes a folder for each start.
    """

    def __init__(self, config: RegisterConfig, folder: Path) -> None:
        self._config, self._folder = config, folder

    def quick(self, view: View, start: Composite, number: int) -> Composite:
        """Refine a start rigidly on coarse images."""
        mpp = common_mpp(view.fixed, view.moving, _START_SIDES * self._config.search_side)
        coarse = replace(view, fixed=coarsened(view.fixed, mpp), moving=coarsened(view.moving, mpp))
        levels = parameters.resolutions(coarse.fixed.grid)
        stages = (parameters.rigid(view.metric, self._config, levels),)
        return self._run(coarse, stages, start, self._folder / f"start-{number}")

    def full(self, view: View, start: Composite, folder: Path, *, deformable: bool) -> Composite:
        """Fit rigid, affine and perhaps B-spline at full resolution, and join the affine parts."""
        levels = parameters.resolutions(view.fixed.grid)
        fine, metric = min(levels, _FINE_LEVELS), view.metric
        stages = [parameters.rigid(metric, self._config, fine), parameters.affine(metric, self._config, fine)]
        if deformable:
            stages.append(parameters.bspline(metric, _resolvable(self._config, view.fixed.grid), levels))
        return _joined(self._run(view, tuple(stages), start, folder))

    def other(self, views: Sequence[View], start: Composite, folder: Path) -> tuple[Composite | None, str]:
        """Fit rigid and affine on the first of the other views, if there is one."""
        try:
            return (self.full(views[0], start, folder, deformable=False) if views else None), ""
        except RegistrationError as error:
            return None, str(error)

    def _run(self, view: View, stages: tuple[ParameterMap, ...], start: Composite, folder: Path) -> Composite:
        fixed, moving = _prepared(view.fixed, view.metric), _prepared(view.moving, view.metric)
        request = ElastixRequest(fixed, moving, stages, start, folder, self._config.time_limit_s)
        return shared_process(self._config.threads).register(request).transform


def _resolvable(config: RegisterConfig, grid: Grid) -> RegisterConfig:
    """Keep control points sixteen pixels apart at least: closer ones follow noise and fold."""
    spacing = max(config.grid_um, _LEAST_SPACING_PX * max(grid.mpp_x, grid.mpp_y))
    return config.model_copy(update={"grid_um": spacing})


def _prepared(image: RegistrationImage, metric: str) -> RegistrationImage:
    """Return the image as elastix compares it.

    Outside the mask stands the mean of the inside, so that a pyramid's smoothing brings no edge in. Mutual information
    gets ranks instead of intensities: its histogram has bins of equal width, which a few bright pixels would empty.
    """
    inside = image.pixels[image.mask]
    if metric == "mi":
        limits = np.quantile(inside, np.linspace(0, 1, 257)).astype(np.float32)
        limits, ranks = np.unique(limits, return_index=True)
        pixels = np.interp(image.pixels, limits, ranks / 256).astype(np.float32)
        inside = pixels[image.mask]
    else:
        pixels = image.pixels
    return replace(image, pixels=np.where(image.mask, pixels, inside.mean()).astype(np.float32))


def _joined(transform: Composite) -> Composite:
    """Return the same transform with neighbouring affine parts multiplied."""
    parts: list[Affine | BSpline] = []
    for part in transform.parts:
        if parts and isinstance(part, Affine) and isinstance(parts[-1], Affine):
            parts[-1] = part.after(parts[-1])
        else:
            parts.append(part)
    return Composite(tuple(parts))
