"""The pixels that count: tissue, and the gaps in it, which tell as much of a place as the tissue does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from comir_batch.pipeline.overview import sample_nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.pipeline.overview import Overview

_GAP_PX = 128


def counted(overview: Overview, grid: Grid) -> NDArray[np.bool_]:
    """Return where there is tissue, ``(Y, X)`` on a working grid, gaps of up to `_GAP_PX` of its pixels closed.

    Tissue masks follow dark gaps between cells. Of ten fields of DAPI and TRITC five were found by what such masks
    leave of them, and nine with the gaps.
    """
    radius = max(round(_GAP_PX / 2 * grid.mpp_x / overview.grid.mpp_x), 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    tissue = cv2.copyMakeBorder(
        overview.tissue.astype(np.uint8), radius, radius, radius, radius, cv2.BORDER_REFLECT_101
    )
    closed = cv2.morphologyEx(tissue, cv2.MORPH_CLOSE, kernel)[radius:-radius, radius:-radius]
    return sample_nearest(closed.astype(bool), overview.grid, grid)
