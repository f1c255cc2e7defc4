"""A manifest of real pairs: a whole NDPI pair, and three pairs cut from the real images and moved by known motions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from comir_batch.bench.known_motion import Motion, move, write_pyramid
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "pair_id,fixed,moving,fixed_modality,moving_modality,model"
MPP = 0.5
# What no model has seen: the bottom quarter of the NDPI pair.
REGION = Region(400, 3700, 400 + 1500, 3700 + 1100)


def write_pairs(folder: Path, ndpi: tuple[Path, Path], fields: tuple[Path, Path]) -> Path:
    """Write the cut slides and the manifest of all four pairs into a folder; return the manifest."""
    dapi, tritc = (open_slide(SlideSpec(path)) for path in ndpi)
    grid = dapi.info.grid()
    tissue_grid = Grid(REGION.width, REGION.height, grid.mpp_x, grid.mpp_y)
    tissue = [_brightest(slide.read(REGION)) for slide in (dapi, tritc)]
    neurons = [np.asarray(Image.open(path)).astype(np.uint16)[None] for path in fields]
    neuron_grid = Grid(neurons[0].shape[2], neurons[0].shape[1], MPP, MPP)
    turned = Motion(angle_deg=35.0, shift_um=(9.0, -6.0), amplitude_um=4.0, spacing_um=120.0)
    mirrored = Motion(angle_deg=-80.0, shift_um=(4.0, 7.0), amplitude_um=3.0, spacing_um=120.0, mirrored=True)
    _write(folder, "cut-turned", tissue, tissue_grid, turned)
    _write(folder, "cut-mirrored", tissue, tissue_grid, mirrored)
    _write(folder, "neurons", neurons, neuron_grid, turned)
    rows = [
        f"whole,{ndpi[0]},{ndpi[1]},dapi,tritc,dapi-tritc",
        "cut-turned,cut-turned-fixed.ome.tif,cut-turned-moving.ome.tif,dapi,tritc,dapi-tritc",
        "cut-mirrored,cut-mirrored-fixed.ome.tif,cut-mirrored-moving.ome.tif,dapi,tritc,dapi-tritc",
        "neurons,neurons-fixed.ome.tif,neurons-moving.ome.tif,map2,nfh,none",
    ]
    path = folder / "manifest.csv"
    path.write_text("\n".join([HEADER, *rows, ""]), encoding="utf-8")
    return path


def _brightest(pixels: np.ndarray) -> np.ndarray:
    """Return the one channel of an RGB rendering of fluorescence that holds the light, as ``(1, Y, X)``."""
    return pixels[[int(np.argmax(pixels.reshape(len(pixels), -1).mean(axis=1)))]]


def _write(folder: Path, name: str, pixels: list[np.ndarray], grid: Grid, motion: Motion) -> None:
    moved, moving_grid, _ = move(pixels[1], grid, motion)
    write_pyramid(pixels[0], grid, folder / f"{name}-fixed.ome.tif", ["light"])
    write_pyramid(moved, moving_grid, folder / f"{name}-moving.ome.tif", ["light"])
