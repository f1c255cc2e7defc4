"""Write the manifest of sections with experts' landmarks: ``python landmark_pairs.py --data FOLDER --out FOLDER``.

Then measure: ``comir-batch bench landmarks OUT/pairs.csv --out DIR``. Serial sections of a lung lesion and of a rat's
kidney in different stains, for evaluation only; relative errors do not depend on the pixel size, which is nominal.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

FOLDER = Path("histology_landmarks")
NOMINAL_MPP = 1.0
LUNG, KIDNEY = FOLDER / "cima_lung_lesion1", FOLDER / "rat_kidney"
COLUMNS = (
    *("pair_id", "fixed", "moving", "fixed_modality", "moving_modality", "fixed_mpp", "moving_mpp"),
    *("fixed_landmarks", "moving_landmarks"),
)


class Section(NamedTuple):
    """A stained section: its image, its landmarks, and the image's pixels for one of theirs."""

    stain: str
    image: Path
    landmarks: Path
    scale: float


def _lung(stain: str, name: str) -> Section:
    stem = f"29-041-Izd2-w35-{name}-les1"
    return Section(stain, LUNG / "images_1200px" / f"{stem}.jpg", LUNG / "landmarks_50pc" / f"{stem}.csv", 1200 / 8900)


def _kidney(stain: str, name: str) -> Section:
    stem = KIDNEY / "birl_5pc" / f"Rat-Kidney_{name}"
    return Section(stain, stem.with_suffix(".jpg"), stem.with_suffix(".csv"), 1.0)


HE, CD31, PROSPC = _lung("he", "He"), _lung("cd31", "CD31-3"), _lung("prospc", "proSPC-4")
KIDNEY_HE, KIDNEY_CYTOKERATIN = _kidney("he", "HE"), _kidney("pancytokeratin", "PanCytokeratin")
PAIRS = {
    "lung-he-cd31": (HE, CD31),
    "lung-he-prospc": (HE, PROSPC),
    "lung-cd31-prospc": (CD31, PROSPC),
    "kidney-he-pancytokeratin": (KIDNEY_HE, KIDNEY_CYTOKERATIN),
}


def main() -> None:
    """Write the landmarks that both sections of each pair have, in pixels of their images, and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the real images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the manifest and the landmarks")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with (asked.out / "pairs.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(COLUMNS)
        table.writerows(_row(name, pair, asked.data.resolve(), asked.out) for name, pair in PAIRS.items())


def _row(name: str, pair: tuple[Section, Section], data: Path, out: Path) -> tuple[object, ...]:
    points = [_points(data / section.landmarks) * section.scale for section in pair]
    common = min(map(len, points))  # partners have one number; the later ones of the longer table have none
    files = [f"{name}-{side}.csv" for side in ("fixed", "moving")]
    for file, xy in zip(files, points, strict=True):
        np.savetxt(out / file, xy[:common], "%.3f", delimiter=",", header="x_px,y_px", comments="")
    images = (data / section.image for section in pair)
    return name, *images, *(section.stain for section in pair), NOMINAL_MPP, NOMINAL_MPP, *files


def _points(table: Path) -> np.ndarray:
    return np.loadtxt(table, delimiter=",", skiprows=1, usecols=(1, 2), ndmin=2)


if __name__ == "__main__":
    main()
