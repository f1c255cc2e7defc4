"""valis (1.1): features matched for a similarity, optical flow for the rest, with its own settings but for the size."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from valis import preprocessing, registration


class _OneChannel(preprocessing.ChannelGetter):  # type: ignore[misc]
    """The one channel that a slide has, whatever it is called, made ready as valis makes fluorescence ready."""

    def process_image(self, *_args: Any, **_settings: Any) -> Any:
        """Return the image with its contrast evened out, in 8 bits."""
        return super().process_image(channel=0, adaptive_eq=True)


def register(job: dict[str, Any]) -> None:
    """Register, write the image, and tell where the true partners are sent."""
    out, fixed, moving = (Path(job[key]) for key in ("out", "fixed", "moving"))
    slide = pyvips.Image.new_from_file(str(fixed))
    side = max(slide.width, slide.height) // job["reduction"]
    registrar = registration.Valis(
        str(fixed.parent),
        str(out),
        name="pair",
        image_type="fluorescence",
        img_list=[str(fixed), str(moving)],
        reference_img_f=fixed.name,
        align_to_reference=True,
        max_non_rigid_registration_dim_px=side,
    )
    registrar.register(if_processing_cls=_OneChannel, if_processing_kwargs={})
    slide = registrar.get_slide(str(moving))
    slide.warp_and_save_slide(str(out / "aligned.ome.tiff"), crop="reference")
    points = slide.warp_xy(np.array(job["partners"]) / job["mpp"], crop="reference") * job["mpp"]
    said = {"version": version("valis-wsi"), "points": points.tolist()}
    (out / "found.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    register(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
