"""Fields of aligned slides as image files of their own, as somebody would have taken them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from comir_batch.pipeline.files import csv_text, write_text
from comir_batch.retrieval.tables import REQUIRED
from comir_batch.training.crops import Pose

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from comir_batch.training.crops import CropReader


def moved(upright: Pose, shift: float, rng: np.random.Generator) -> Pose:
    """Return a pose shifted by up to some µm along each axis, at any angle, mirrored half the time."""
    x, y = np.array([upright.x, upright.y]) + rng.uniform(-shift, shift, 2)
    return Pose(float(x), float(y), float(rng.uniform(-math.pi, math.pi)), bool(rng.integers(2)))


def save_field(reader: CropReader, pose: Pose, side: int, path: Path) -> None:
    """Write a square field of the slide's own pixels as an OME-TIFF with its pixel size."""
    pixels = reader.original(pose, side)
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"PhysicalSizeX": reader.mpp, "PhysicalSizeY": reader.mpp}
    if reader.is_rgb:
        rgb = np.moveaxis(pixels, 0, -1)
        tifffile.imwrite(path, rgb, ome=True, photometric="rgb", metadata={"axes": "YXS", **metadata})
    else:
        tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata={"axes": "CYX", **metadata})


def save_table(path: Path, folder: str, modality: str, names: Iterable[str]) -> Path:
    """Write a table of slides, of fields in a folder beside it; return it."""
    write_text(path, csv_text(REQUIRED, [(name, f"{folder}/{name}.ome.tif", modality) for name in names]))
    return path
