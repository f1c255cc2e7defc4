"""The whole job on a real image, with a truth to measure against.

Two slide files are made of scikit-image's immunohistochemistry picture: its haematoxylin, and its DAB under a known
rotation, shift and smooth deformation. `comir-batch run` then gets the two files and nothing else. What it finds is
compared with the truth on the right part of the picture, which the model that it uses has never seen.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from skimage.data import immunohistochemistry

from comir_batch.bench.known_motion import Motion, errors, move, write_pyramid
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Composite, from_dict
from comir_batch.training.ihc import MPP, TRAINED_WIDTH, haematoxylin_dab_channels

FOLDER = Path("demo")
RUN = FOLDER / "run"
PAIR = "ihc-01"
MOTION = Motion(angle_deg=25.0, shift_um=(14.0, -9.0), amplitude_um=6.0, spacing_um=64.0)
WORST_MEDIAN_UM = 2.0


def main() -> None:
    """Make the slides, run, measure."""
    FOLDER.mkdir(exist_ok=True)
    truth, unseen = make_slides()
    manifest = write_manifest()

    command = [str(Path(sys.executable).with_name("comir-batch")), "run", str(manifest), "--out", str(RUN)]
    print("$", *command, flush=True)
    started = time.monotonic()
    subprocess.run(command, check=True)  # noqa: S603  our own command
    print(f"took {time.monotonic() - started:.0f} s")

    found = from_dict(json.loads((RUN / "pairs" / PAIR / "transform.json").read_text(encoding="utf-8")))
    after = errors(found, truth, unseen)
    print(f"error against the known transform, at {len(unseen)} points of the part that the model has not seen:")
    print(f"  before: {errors(Composite(), truth, unseen)}")
    print(f"  after:  {after}")
    print(f"report: {(RUN / 'report.html').resolve()}")
    if after.median > WORST_MEDIAN_UM:
        sys.exit(f"the median error is above {WORST_MEDIAN_UM} µm: the demo has failed")


def make_slides() -> tuple[Composite, np.ndarray]:
    """Write the two slides; return the truth, and points in µm of the fixed slide that no model has seen."""
    haematoxylin, dab = haematoxylin_dab_channels(immunohistochemistry())
    height, width = dab.shape
    grid = Grid(width, height, MPP, MPP)
    moving, moving_grid, truth = move(dab[None], grid, MOTION)
    write_pyramid(haematoxylin[None], grid, FOLDER / "haematoxylin.ome.tif", ["haematoxylin"])
    write_pyramid(moving, moving_grid, FOLDER / "dab.ome.tif", ["dab"])
    columns, rows = np.meshgrid(np.arange(TRAINED_WIDTH, width, 8), np.arange(0, height, 8))
    return truth, grid.to_um(np.column_stack([columns.ravel(), rows.ravel()]))


def write_manifest() -> Path:
    """Write the manifest of the one pair."""
    path = FOLDER / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["pair_id", "fixed", "moving", "fixed_modality", "moving_modality"])
        table.writerow([PAIR, "haematoxylin.ome.tif", "dab.ome.tif", "haematoxylin", "dab"])
    return path


if __name__ == "__main__":
    main()
