"""Transforms as QuPath's Warpy extension reads them, ImgLib2's as JSON: `transform_<moving entry>_<fixed entry>.json`.

Warpy looks for the file in the moving image's folder of the project, `data/<moving entry>/`, applies it to pixels of
the fixed image, and inverts it by itself for the way back. Its pixel coordinates are QuPath's, centres lie at 0.5. Like
its own files, ours go through millimetres: pixels to mm, the transform, mm to pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.transform import Affine
from comir_batch.io.transform_files import write_document
from comir_batch.io.viewer_affines import QUPATH_CENTRE, pixels_to_um

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.approximation import ThinPlates
    from comir_batch.core.geometry import Grid

_MM = 1e-3  # per µm


def write_warpy(transform: Affine | ThinPlates, source: Grid, target: Grid, path: Path) -> None:
    """Write an affine, or thin-plate splines in the wrappers that let Warpy invert them.

    Parameters
    ----------
    transform : Affine or ThinPlates
        In µm, from the source slide to the target slide.
    source, target : Grid
        The slides' grids.
    path : Path
        The file; it appears whole, by a rename.

    Notes
    -----
    Classes and keys as in `RealTransformSerializer` of https://github.com/BIOP/qupath-extension-warpy
    """
    to_mm = Affine(np.eye(2) * _MM, np.zeros(2))
    steps = [
        _affine(to_mm.after(pixels_to_um(source, QUPATH_CENTRE))),
        _affine(to_mm.after(transform).after(to_mm.inverse())) if isinstance(transform, Affine) else _plates(transform),
        _affine(to_mm.after(pixels_to_um(target, QUPATH_CENTRE)).inverse()),
    ]
    numbered = {f"realTransform_{number}": step for number, step in enumerate(steps)}
    write_document({"type": "InvertibleRealTransformSequence", "size": len(steps), **numbered}, path)


def _affine(affine: Affine) -> dict[str, Any]:
    """Return three rows of four numbers, one after the other."""
    (a, b), (c, d) = affine.matrix.tolist()
    x, y = affine.offset.tolist()
    return {"type": "AffineTransform3D", "affinetransform3d": [a, b, 0.0, x, c, d, 0.0, y, 0.0, 0.0, 1.0, 0.0]}


def _plates(plates: ThinPlates) -> dict[str, Any]:
    """Return landmarks, a row a coordinate, in the wrappers."""
    spline = {
        "type": "ThinplateSplineTransform",
        "srcPts": (plates.source * _MM).T.tolist(),
        "tgtPts": (plates.target * _MM).T.tolist(),
    }
    invertible = {"type": "WrappedIterativeInvertibleRealTransform", "wrappedTransform": spline}
    return {"type": "Wrapped2DTransformAs3D", "wrappedTransform": invertible}
