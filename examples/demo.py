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
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from skimage.data import immunohistochemistry

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite, from_dict
from comir_batch.training.ihc import MPP, TRAINED_WIDTH, haematoxylin_dab_channels

FOLDER = Path("demo")
PAIR = "ihc-01"
ANGLE_DEG = 25.0
SHIFT_UM = (14.0, -9.0)
CONTROL_UM = 64.0
DEFORMATION_UM = 4.0
TILE = 256
WORST_MEDIAN_UM = 2.0


def main() -> None:
    """Make the slides, run, measure."""
    haematoxylin, dab = haematoxylin_dab_channels(immunohistochemistry())
    fixed = Grid(haematoxylin.shape[1], haematoxylin.shape[0], MPP, MPP)
    moving = Grid(736, 736, MPP, MPP)
    truth = known_transform(fixed, moving)
    FOLDER.mkdir(exist_ok=True)
    write_slide(FOLDER / "haematoxylin.tif", haematoxylin)
    write_slide(FOLDER / "dab.tif", deformed(dab, fixed, moving, truth))
    manifest = write_manifest()

    command = [str(Path(sys.executable).with_name("comir-batch")), "run", str(manifest), "--out", str(FOLDER / "run")]
    print("$", *command, flush=True)
    subprocess.run(command, check=True)  # noqa: S603  our own command

    found = from_dict(json.loads((FOLDER / "run" / "pairs" / PAIR / "transform.json").read_text(encoding="utf-8")))
    median = print_errors(found, truth, held_out_points(fixed))
    print(f"report: {(FOLDER / 'run' / 'report.html').resolve()}")
    if median > WORST_MEDIAN_UM:
        sys.exit(f"the median error is above {WORST_MEDIAN_UM} µm: the demo has failed")


def known_transform(fixed: Grid, moving: Grid) -> Composite:
    """Return the truth, fixed to moving points: a smooth deformation, then a rotation about the middle and a shift."""
    counts = np.ceil(np.array(fixed.size_um) / CONTROL_UM).astype(int) + 5
    random = np.random.default_rng(7).normal(0.0, DEFORMATION_UM, (2, counts[1], counts[0]))
    bspline = BSpline(np.full(2, -2 * CONTROL_UM), np.full(2, CONTROL_UM), random)
    cosine, sine = np.cos(np.deg2rad(ANGLE_DEG)), np.sin(np.deg2rad(ANGLE_DEG))
    middle, new_middle = fixed.corners_um().mean(axis=0), moving.corners_um().mean(axis=0)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return Composite((bspline, Affine.about(rotation, middle, new_middle - middle + SHIFT_UM)))


def deformed(image: np.ndarray, fixed: Grid, moving: Grid, truth: Composite) -> np.ndarray:
    """Return the moving slide: at its point q it shows the fixed point p for which truth(p) = q; black outside."""
    rows, columns = np.indices(moving.shape)
    wanted = moving.to_um(np.column_stack([columns.ravel(), rows.ravel()]))
    x, y = fixed.to_pixels(inverse(truth, wanted, fixed)).T
    values = ndimage.map_coordinates(image.astype(float), [y, x], order=3, mode="constant", cval=0.0)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).reshape(moving.shape)


def inverse(truth: Composite, points: np.ndarray, fixed: Grid) -> np.ndarray:
    """Return the fixed points that truth maps to these moving points, by fixed-point iteration."""
    bspline, affine = truth.parts
    straight = affine.inverse().map(points)
    found = straight
    for _ in range(20):
        found = straight - bspline.displacement(found)
    # Where the deformation ends, outside the picture, it jumps to zero and has no inverse.
    inside = ((found >= 0) & (found <= fixed.size_um)).all(axis=1)
    error = np.abs(truth.map(found) - points)[inside].max()
    if error > 1e-6:
        sys.exit(f"the known transform could not be inverted: {error:.2g} µm are left")
    return found


def write_slide(path: Path, image: np.ndarray) -> None:
    """Write a tiled TIFF with a pyramid of area means, its pixel size in the resolution tags."""
    levels = [image]
    while max(levels[-1].shape) > TILE:
        levels.append(halved(levels[-1]))
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(levels):
            per_cm = 1e4 / (MPP * 2**number)
            place = {"subifds": len(levels) - 1} if number == 0 else {"subfiletype": 1}
            tiff.write(level, tile=(TILE, TILE), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER", **place)


def halved(image: np.ndarray) -> np.ndarray:
    """Return means of two by two pixels; sides are even here."""
    height, width = image.shape
    return np.rint(image.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))).astype(np.uint8)


def write_manifest() -> Path:
    """Write the manifest of the one pair."""
    path = FOLDER / "manifest.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["pair_id", "fixed", "moving", "fixed_modality", "moving_modality"])
        table.writerow([PAIR, "haematoxylin.tif", "dab.tif", "haematoxylin", "dab"])
    return path


def held_out_points(fixed: Grid) -> np.ndarray:
    """Return a grid of points in µm over the part of the picture that the model has not seen."""
    columns = np.arange(TRAINED_WIDTH + 4, fixed.width - 8, 8)
    rows = np.arange(8, fixed.height - 8, 8)
    return fixed.to_um(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2))


def print_errors(found: Composite, truth: Composite, points: np.ndarray) -> float:
    """Print the distances to the truth before and after, and return the median after."""
    wanted = truth.map(points)
    print(f"error against the known transform, {len(points)} points that the model has not seen:")
    for name, mapped in (("before", points), ("after", found.map(points))):
        errors = np.linalg.norm(mapped - wanted, axis=1)
        median, high, worst = np.percentile(errors, [50, 95, 100])
        print(f"  {name:6}  median {median:7.2f} µm   95th percentile {high:7.2f} µm   largest {worst:7.2f} µm")
    return float(median)


if __name__ == "__main__":
    main()
