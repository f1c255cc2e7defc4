"""wsireg (0.3): elastix with mutual information, rigid, affine and B-spline, with its own parameters."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wsireg.wsireg2d import WsiReg2D


def register(job: dict[str, Any]) -> None:
    """Register, write the image, and tell where the points were found."""
    out = Path(job["out"])
    graph = WsiReg2D("pair", str(out))
    for name in ("fixed", "moving"):
        preprocessing = {"image_type": "FL", "as_uint8": True, "downsampling": job["reduction"]}
        graph.add_modality(name, job[name], job["mpp"], channel_names=[name], preprocessing=preprocessing)
    graph.add_reg_path("moving", "fixed", thru_modality=None, reg_params=["rigid", "affine", "nl"])
    graph.register_images()
    graph.save_transformations()
    graph.transform_images(file_writer="ome.tiff", transform_non_reg=False)
    found = graph.transformations["moving"]["full-transform-seq"].composite_transform
    partners = [found.TransformPoint(point) for point in job["points"]]
    (out / "found.json").write_text(json.dumps({"version": version("wsireg"), "partners": partners}), encoding="utf-8")


if __name__ == "__main__":
    register(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
