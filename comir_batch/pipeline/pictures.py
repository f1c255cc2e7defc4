"""What the page of a pair shows: both slides and CoMIRs on one grid, maps of the transform, and the worst places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.transform import Composite
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline.files import read_arrays, read_json
from comir_batch.pipeline.layout import JudgeFiles, RegisterFiles, SlideFiles
from comir_batch.pipeline.overview import Overview, sample_nearest
from comir_batch.pipeline.stages.chunk import background
from comir_batch.pipeline.views import load_views
from comir_batch.registration.held_out import TILE
from comir_batch.registration.refine import State
from comir_batch.report.data import Maps, View, WorstPlace
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.slide import Photometric
    from comir_batch.pipeline.views import Side
    from comir_batch.registration.images import View as PixelView

_SIDE = 1000
_MAP_SIDE = 128
_WORST = 6
_CROP = 160
_CELL = 8


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images and maps of one pair, ready to be drawn."""

    grid: Grid
    slides: View
    comirs: View | None
    maps: Maps
    worst: tuple[WorstPlace, ...]


def make_pictures(sides: tuple[Side, Side], factor: int, start: Composite, register: Path, judge: Path) -> Pictures:
    """Warp the overviews and the CoMIRs, and sample the transform.

    Parameters
    ----------
    sides : (Side, Side)
        Fixed and moving.
    factor : int
        Reduction of the working level that registration worked at.
    start : Composite
        What "before" means.
    register, judge : Path
        Folders of the finished jobs.
    """
    found = read_transform_json(RegisterFiles(register).transform)
    working = sides[0].working.grid
    grid = working.reduced(-(-max(working.shape) // _SIDE))
    tiles = read_arrays(JudgeFiles(judge).tiles)
    views = {view.name: view for view in load_views(*sides, factor)}
    fitted = read_json(RegisterFiles(register).summary)["view"]
    return Pictures(
        grid=grid,
        slides=_slides(sides, start, found, grid),
        comirs=_comirs(views["comir"], start, found, grid) if "comir" in views else None,
        maps=_maps(sides[0], found, tiles, views["raw"].fixed.grid, RegisterFiles(register)),
        worst=_worst_places(views[fitted], found, tiles, _photometrics(sides, fitted)),
    )


def _slides(sides: tuple[Side, Side], start: Composite, found: Composite, grid: Grid) -> View:
    def shown(side: Side, transform: Composite) -> NDArray[Any]:
        overview = Overview.load(SlideFiles(side.chunk).overview)
        fill = background(side.working.info.photometric, side.working.info.dtype)
        return _picture(warp_array(overview.pixels, overview.grid, transform, grid, fill=fill), side)

    fixed, moving = sides
    return View(shown(fixed, Composite()), shown(moving, start), shown(moving, found))


def _picture(pixels: NDArray[Any], side: Side) -> NDArray[Any]:
    """Return ``(C, Y, X)`` pixels as the report wants them: 8-bit RGB, or grey in 0..1."""
    if side.working.info.is_rgb and pixels.dtype == np.uint8:
        return np.ascontiguousarray(np.moveaxis(pixels, 0, 2))
    grey = pixels.astype(np.float32).mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    return np.asarray((grey - low) / max(high - low, 1e-6))


def _comirs(view: PixelView, start: Composite, found: Composite, grid: Grid) -> View:
    """Show both CoMIRs on one scale, the one that makes them comparable."""
    inside = np.concatenate([image.pixels[image.mask] for image in (view.fixed, view.moving)])
    low, high = np.percentile(inside, [1, 99])

    def shown(image: Any, transform: Composite) -> NDArray[np.float32]:
        pixels = np.where(image.mask, image.pixels, low)[None]
        warped = warp_array(pixels.astype(np.float32), image.grid, transform, grid, fill=float(low))[0]
        return np.asarray(np.clip((warped - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)

    return View(shown(view.fixed, Composite()), shown(view.moving, start), shown(view.moving, found))


def _maps(
    fixed: Side, found: Composite, tiles: dict[str, NDArray[Any]], tile_grid: Grid, register: RegisterFiles
) -> Maps:
    working = fixed.working.grid
    grid = working.reduced(max(1, -(-max(working.shape) // _MAP_SIDE)))
    overview = Overview.load(SlideFiles(fixed.chunk).overview)
    tissue = sample_nearest(overview.tissue, overview.grid, grid)
    rows, columns = np.mgrid[: grid.height, : grid.width]
    points = grid.to_um(np.stack([columns.ravel(), rows.ravel()], axis=1))
    mapped = found.map(points)
    design = np.column_stack([points, np.ones(len(points))])
    affine = design @ np.linalg.lstsq(design[tissue.ravel()], mapped[tissue.ravel()], rcond=None)[0]
    jacobian = found.jacobian_determinant(points, step_um=grid.mpp_x / 2)

    def shown(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(tissue, values.reshape(grid.shape), np.nan)

    return Maps(
        displacement_um=shown(np.linalg.norm(mapped - points, axis=1)),
        nonrigid_um=shown(np.linalg.norm(mapped - affine, axis=1)),
        jacobian=shown(jacobian),
        jacobian_note="The local change of area; the transform folds where it is 0 or less.",
        tiles_before=_spread(tiles["before"], tile_grid),
        tiles_after=_spread(tiles["after"], tile_grid),
        tiles_error_um=_spread(tiles["error_um"], tile_grid),
        cells_per_tile=(TILE // _CELL) ** 2,
        similarity=str(tiles["similarity"]),
        **_blocks(register, working, grid),
    )


def _blocks(register: RegisterFiles, working: Grid, grid: Grid) -> dict[str, NDArray[np.float64]]:
    """Return what became of each block, at the pixels of a coarser grid; nothing without block refinement."""
    if not register.block_map.exists():
        return {}
    found = read_arrays(register.block_map)
    states, side = found["states"], int(found["side"])
    lost = np.where(states == State.EMPTY, np.nan, State.USED - states.astype(np.float64))
    first, last = working.to_pixels(grid.to_um([[0, 0], [grid.width - 1, grid.height - 1]]))
    across, down = (
        np.floor((np.linspace(low, high, count) + 0.5) / side).astype(int)
        for low, high, count in zip(first, last, (grid.width, grid.height), strict=True)
    )
    inside = (down < len(states))[:, None] & (across < states.shape[1])
    at = np.minimum(down, len(states) - 1)[:, None], np.minimum(across, states.shape[1] - 1)
    named = {"blocks_um": found["shifts_um"], "blocks_lost": lost}
    return {name: np.where(inside, values[at], np.nan) for name, values in named.items()}


def _spread(tiles: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Lay tiles out over the whole grid, a cell for every eight pixels; an incomplete last row or column is NaN."""
    per_tile, (height, width) = TILE // _CELL, (-(-side // _CELL) for side in grid.shape)
    spread = np.full((height, width), np.nan)
    fine = tiles.repeat(per_tile, axis=0).repeat(per_tile, axis=1)
    spread[: fine.shape[0], : fine.shape[1]] = fine
    return spread


def _shades(view: PixelView) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return what is black and white in the fixed and the moving image: the same in CoMIRs, which are comparable."""
    images = (view.fixed, view.fixed) if view.metric == "ncc" else (view.fixed, view.moving)
    fixed, moving = (np.percentile(image.pixels[image.mask], [1, 99]) for image in images)
    return (float(fixed[0]), float(fixed[1])), (float(moving[0]), float(moving[1]))


def _photometrics(sides: tuple[Side, Side], view: str) -> tuple[Photometric, Photometric]:
    """Return which of light and dark stands out in the fixed and the moving image of a view."""
    fixed, moving = (side.working.info.photometric for side in sides)
    return ("dark", "dark") if view == "comir" else (fixed, moving)


def _worst_places(
    view: PixelView,
    found: Composite,
    tiles: dict[str, NDArray[Any]],
    photometrics: tuple[Photometric, Photometric] = ("dark", "dark"),
) -> tuple[WorstPlace, ...]:
    after = tiles["after"]
    order = np.argsort(np.where(np.isfinite(after), after, np.inf), axis=None)[: min(_WORST, np.isfinite(after).sum())]
    grid = view.fixed.grid
    moved = warp_array(view.moving.pixels[None], view.moving.grid, found, grid)[0].astype(np.float32)
    shades = _shades(view)
    places = []
    for row, column in zip(*np.unravel_index(order, after.shape), strict=True):
        x, y = (column + 0.5) * TILE, (row + 0.5) * TILE
        crops = [
            np.clip((_crop(image, x, y) - low) / max(high - low, 1e-6), 0, 1)
            for image, (low, high) in zip((view.fixed.pixels, moved), shades, strict=True)
        ]
        (x_um, y_um), width_um = grid.to_um([[x - 0.5, y - 0.5]])[0], crops[0].shape[1] * grid.mpp_x
        told = float(x_um), float(y_um), float(after[row, column])
        places.append(WorstPlace(*told, crops[0], crops[1], width_um, *photometrics))
    return tuple(places)


def _crop(image: NDArray[np.float32], x: float, y: float) -> NDArray[np.float32]:
    """Return the surroundings of a place in pixels, shifted where they would leave the image."""
    height, width = image.shape
    side_y, side_x = min(_CROP, height), min(_CROP, width)
    y0 = int(np.clip(y - side_y / 2, 0, height - side_y))
    x0 = int(np.clip(x - side_x / 2, 0, width - side_x))
    return image[y0 : y0 + side_y, x0 : x0 + side_x]
