"""Does an installation work: draw a small pair with a known motion, run it on the CPU, and look at the error.

``python -m comir_batch.bench.smoke`` needs no file and no network; a container image tests itself with it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from comir_batch.bench.known_motion import Errors, Motion, errors, move, write_pyramid
from comir_batch.bench.recovery import tissue_points
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import ComirBatchError, TaskError
from comir_batch.core.events import EventBus
from comir_batch.core.geometry import Grid
from comir_batch.core.manifest import REQUIRED
from comir_batch.execution.serial import SerialExecutor
from comir_batch.io.transform_files import read_json as read_transform_json
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run import RunRequest, run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.transform import Composite

WORST_MEDIAN_UM = 3.0
"""Largest median error of a working installation; before registration it is 70 µm."""
_PAIR = "drawn"
_SIDE = 512
_MPP = 0.5
_NUCLEUS_PX = 8.0
_MOTION = Motion(angle_deg=20.0, shift_um=(8.0, -5.0), amplitude_um=2.0, spacing_um=48.0)
_SETTINGS: dict[str, Any] = {
    "model": "haematoxylin-dab",
    "register": {"iterations": 50, "samples": 1024, "angles": 36, "candidates": 1, "threads": 1},
    "execution": {"device": "cpu"},
}


def main() -> None:
    """Measure in a temporary folder and print the error; exit with 1 and one line if it is large or the run fails."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="comir-batch-smoke-") as folder:
            found = measure(Path(folder))
        check(found)
    except ComirBatchError as error:
        sys.exit(f"smoke test failed: {' '.join(str(error).split())}")
    print(f"smoke test passed: {found}; {time.monotonic() - started:.0f} s")  # noqa: T201  what it is run for


def measure(folder: Path) -> Errors:
    """Draw the pair into a folder, run it there from its files alone, and return the errors on its tissue.

    Raises
    ------
    TaskError
        If the run gave no transform; says why.
    """
    truth = draw_pair(folder)
    layout = Layout(folder.resolve() / "run")
    request = RunRequest(folder / "manifest.csv", layout.root, load_config(None, _SETTINGS))
    summary = run(request, EventBus(), lambda _: SerialExecutor())
    transform = layout.pair(_PAIR).transform_json
    if not transform.is_file():
        raise TaskError("; ".join(summary.results[0].reasons))
    points = tissue_points(folder / "haematoxylin.ome.tif", (0.0, 0.0, 1.0, 1.0))
    return errors(read_transform_json(transform), truth, points)


def check(found: Errors) -> None:
    """Raise TaskError if the median error is larger than a working installation makes."""
    if found.median > WORST_MEDIAN_UM:
        raise TaskError(f"{found}; the median may be {WORST_MEDIAN_UM} µm")


def draw_pair(folder: Path) -> Composite:
    """Write haematoxylin.ome.tif, dab.ome.tif under a known motion, and manifest.csv; return the motion."""
    haematoxylin, dab = draw_tissue(_SIDE)
    grid = Grid(_SIDE, _SIDE, _MPP, _MPP)
    moved, moved_grid, truth = move(dab[None], grid, _MOTION)
    write_pyramid(haematoxylin[None], grid, folder / "haematoxylin.ome.tif", ["haematoxylin"])
    write_pyramid(moved, moved_grid, folder / "dab.ome.tif", ["dab"])
    row = (_PAIR, "haematoxylin.ome.tif", "dab.ome.tif", "haematoxylin", "dab")
    (folder / "manifest.csv").write_text(f"{','.join(REQUIRED)}\n{','.join(row)}\n", encoding="utf-8")
    return truth


def draw_tissue(side: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a piece of tissue twice: its nuclei, and the stain of its cytoplasm, which is weaker where nuclei lie.

    Parameters
    ----------
    side : int
        Of the images, in pixels.
    seed : int
        Of all that is drawn by chance.

    Returns
    -------
    haematoxylin, dab : (side, side) uint8
        Stain on a dark background.
    """
    rng = np.random.default_rng(seed)
    tissue = np.zeros((side, side), np.float32)
    cv2.ellipse(tissue, ((side / 2, side / 2), (0.84 * side, 0.68 * side), 30.0), 1.0, -1)
    density = cv2.GaussianBlur(rng.normal(size=tissue.shape).astype(np.float32), (0, 0), 24)
    density = (density - density.min()) / np.ptp(density)
    nuclei = _nuclei(side, rng) * (density > 0.45)
    cytoplasm = (0.25 + 0.75 * density) * (1 - 0.6 * nuclei)
    first, second = (
        tissue * (0.05 + 0.85 * cv2.GaussianBlur(stain, (0, 0), 1) + rng.normal(scale=0.02, size=tissue.shape))
        for stain in (nuclei, cytoplasm)
    )
    return _to_uint8(first), _to_uint8(second)


def _nuclei(side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    image = np.zeros((side, side), np.float32)
    for x, y in rng.uniform(0, side, size=(side * side // 150, 2)):
        width, height = rng.uniform(1.2, 2.8, size=2) * _NUCLEUS_PX
        cv2.ellipse(image, ((x, y), (width, height), rng.uniform(0, 180)), rng.uniform(0.5, 1.0), -1)
    return image


def _to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(255 * image), 0, 255), dtype=np.uint8)


if __name__ == "__main__":
    main()
