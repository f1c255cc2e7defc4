"""A manifest of real pairs: a whole NDPI pair, and three pairs cut from it and moved by known motions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comir_batch.bench.known_motion import Motion, move, write_pyramid
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,model"
# Of the bottom quarter, which no model has seen, and of the middle.
BOTTOM = Region(400, 3700, 400 + 1500, 3700 + 1100)
MIDDLE = Region(1200, 1900, 1200 + 1500, 1900 + 1100)
TURNED = Motion(angle_deg=35.0, shift_um=(9.0, -6.0), amplitude_um=4.0, spacing_um=120.0)
MIRRORED = Motion(angle_deg=-80.0, shift_um=(4.0, 7.0), amplitude_um=3.0, spacing_um=120.0, mirrored=True)
CUTS = (("turned", BOTTOM, TURNED), ("mirrored", BOTTOM, MIRRORED), ("raw", MIDDLE, TURNED))
MODELS = {"turned": "dapi-tritc", "mirrored": "dapi-tritc", "raw": "none"}


def write_pairs(folder: Path, ndpi: tuple[Path, Path]) -> Path:
    """Write the cut slides and the manifest of all four pairs into a folder; return the manifest."""
    dapi, tritc = (open_slide(SlideSpec(path)) for path in ndpi)
    for name, region, motion in CUTS:
        grid = Grid(region.width, region.height, dapi.info.grid().mpp_x, dapi.info.grid().mpp_y)
        fixed, moving = (_brightest(slide.read(region)) for slide in (dapi, tritc))
        moved, moving_grid, _ = move(moving, grid, motion)
        write_pyramid(fixed, grid, folder / f"{name}-fixed.ome.tif", ["light"])
        write_pyramid(moved, moving_grid, folder / f"{name}-moving.ome.tif", ["light"])
    rows = [f"whole,{ndpi[0]},{ndpi[1]},dapi,tritc,dapi-tritc"]
    rows += [f"{name},{name}-fixed.ome.tif,{name}-moving.ome.tif,dapi,tritc,{MODELS[name]}" for name, *_ in CUTS]
    path = folder / "manifest.csv"
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return path


def _brightest(pixels: np.ndarray) -> np.ndarray:
    """Return the one channel of an RGB rendering of fluorescence that holds the light, as ``(1, Y, X)``."""
    return pixels[[int(np.argmax(pixels.reshape(len(pixels), -1).mean(axis=1)))]]
