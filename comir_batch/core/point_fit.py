"""The transform that takes points nearest to others, in the least-squares sense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.approximation import best_affine
from comir_batch.core.errors import UserError
from comir_batch.core.transform import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["rigid", "similarity", "affine"]
_LEAST = {"rigid": 2, "similarity": 2, "affine": 3}


def fit_points(kind: Kind, fixed: NDArray[np.float64], moving: NDArray[np.float64], *, mirrored: bool) -> Affine:
    """Return the transform with the least squared distances between mapped fixed points and moving points.

    Parameters
    ----------
    kind : {"rigid", "similarity", "affine"}
        A rotation and a shift; with one scale; any.
    fixed, moving : (N, 2) float64
        Corresponding points, ``(x, y)`` in µm.
    mirrored : bool
        Whether a rigid transform or a similarity mirrors; an affine one does as it likes.

    Returns
    -------
    Affine
        Fixed µm to moving µm.

    Raises
    ------
    UserError
        If there are too few points, or they lie on one place or, for an affine transform, on one line.

    Notes
    -----
    Umeyama, Least-squares estimation of transformation parameters between two point patterns, IEEE TPAMI 13 (1991).
    """
    if fixed.shape != moving.shape or len(fixed) < _LEAST[kind]:
        counts = f"{len(fixed)} fixed and {len(moving)} moving"
        raise UserError(f"{counts} points: a fit ({kind}) needs as many of both, and {_LEAST[kind]} at least. Add some")
    centres = fixed.mean(axis=0), moving.mean(axis=0)
    a, b = fixed - centres[0], moving - centres[1]
    spread = np.linalg.svd(a, compute_uv=False)
    if spread[0] == 0 or (kind == "affine" and spread[1] < 1e-9 * spread[0]):
        raise UserError(f"the fixed points do not tell a transform ({kind}) from others. Spread them over the slide")
    if kind == "affine":
        return best_affine(fixed, moving)
    left, values, right = np.linalg.svd(b.T @ a)
    sign = np.sign(np.linalg.det(left @ right)) * (-1 if mirrored else 1)
    turn = left @ np.diag([1.0, sign]) @ right
    scale = 1.0 if kind == "rigid" else float(values @ [1.0, sign]) / float((a**2).sum())
    matrix = scale * turn
    return Affine(matrix, centres[1] - matrix @ centres[0])
