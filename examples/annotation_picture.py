"""A picture of annotations that went from the moving slide to the fixed one.

    python examples/annotation_picture.py RUN PAIR_ID FOLDER

RUN is a run directory made with --keep-work. The largest bright structures of the moving slide are outlined and written
as QuPath would, ``FOLDER/moving.geojson``; `comir-batch transform geojson` brings them to ``FOLDER/fixed.geojson``; and
both are drawn on their slides, ``FOLDER/annotations.jpg``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from make_pictures import JPEG, find_pair

from comir_batch.pipeline.layout import SlideFiles
from comir_batch.pipeline.overview import Overview
from comir_batch.report.figures import panel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.pipeline.views import Side

_LARGEST, _SMOOTH = 14, 6.0
_COLOUR, _HEIGHT = (255, 190, 0), 620


def main(run_directory: Path, pair_id: str, folder: Path) -> None:
    """Outline, transform and draw."""
    fixed, moving = find_pair(run_directory, pair_id).sides
    folder.mkdir(parents=True, exist_ok=True)
    drawn, brought = folder / "moving.geojson", folder / "fixed.geojson"
    drawn.write_text(json.dumps(_features(outlines(moving))), encoding="utf-8")
    brought.unlink(missing_ok=True)
    pair = run_directory / "pairs" / pair_id
    command = ["comir-batch", "transform", "geojson", str(drawn), str(brought), "--transform", str(pair), "--inverse"]
    subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]], check=True)  # noqa: S603  ours
    pictures = [_picture(moving, drawn), _picture(fixed, brought)]
    picture = panel(pictures, ["drawn on the moving slide", "brought to the fixed slide"], height=_HEIGHT, columns=2)
    cv2.imwrite(str(folder / "annotations.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG)
    print(f"{folder / 'annotations.jpg'}: {picture.shape[1]} x {picture.shape[0]} pixels")


def outlines(side: Side) -> list[NDArray[np.float64]]:
    """Return the outlines of the largest bright structures, in level-0 pixels as QuPath counts them."""
    overview = _overview(side)
    smooth = cv2.GaussianBlur(overview.pixels.astype(np.float32).mean(axis=0), (0, 0), _SMOOTH)
    eight_bit = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    limit = np.percentile(eight_bit[overview.tissue], 85)
    found, _ = cv2.findContours((eight_bit > limit).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    largest = sorted(found, key=cv2.contourArea, reverse=True)[:_LARGEST]
    level0 = side.working.info.grid()
    return [level0.to_pixels(overview.grid.to_um(contour[:, 0])) + 0.5 for contour in largest]


def _overview(side: Side) -> Overview:
    return Overview.load(SlideFiles(side.chunk).overview)


def _features(rings: list[NDArray[np.float64]]) -> dict[str, Any]:
    closed = [np.vstack([ring, ring[:1]]).tolist() for ring in rings]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation"},
        }
        for ring in closed
    ]
    return {"type": "FeatureCollection", "features": features}


def _picture(side: Side, annotations: Path) -> NDArray[np.uint8]:
    overview, level0 = _overview(side), side.working.info.grid()
    grey = overview.pixels.astype(np.float32).mean(axis=0)
    low, high = np.percentile(grey[overview.tissue], [1, 99.5])
    picture = cv2.cvtColor(np.clip((grey - low) / (high - low) * 255, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    for feature in json.loads(annotations.read_text(encoding="utf-8"))["features"]:
        for ring in feature["geometry"]["coordinates"]:
            pixels = overview.grid.to_pixels(level0.to_um(np.array(ring) - 0.5))
            cv2.polylines(picture, [np.rint(pixels).astype(np.int32)], True, _COLOUR, 2, cv2.LINE_AA)  # noqa: FBT003
    return picture


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
