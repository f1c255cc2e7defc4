"""Transforms: they map points of the fixed slide to points of the moving slide, both in µm.

This is the direction of elastix and ITK: it pulls images. Moving points reach the fixed slide by its inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FORMAT_VERSION = 1


class Transform(Protocol):
    """Anything that maps ``(N, 2)`` fixed points to moving points, ``(x, y)`` in µm."""

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Describe the transform losslessly in JSON's own types."""
        ...


@dataclass(frozen=True, eq=False)
class Affine:
    """``T(p) = matrix @ p + offset``.

    Parameters
    ----------
    matrix : (2, 2) float64
        Linear part, acting on column vectors ``(x, y)``.
    offset : (2,) float64
        Translation in µm.
    """

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", _frozen(self.matrix, (2, 2)))
        object.__setattr__(self, "offset", _frozen(self.offset, (2,)))

    @classmethod
    def identity(cls) -> Affine:
        """Return the transform that moves nothing."""
        return cls(np.array([[1.0, 0.0], [0.0, 1.0]]), np.zeros(2))

    @classmethod
    def about(cls, matrix: ArrayLike, centre: ArrayLike, translation: ArrayLike) -> Affine:
        """Return ``T(p) = matrix @ (p - centre) + centre + translation``, elastix' parametrisation."""
        linear: NDArray[np.float64] = np.asarray(matrix, dtype=np.float64)
        pivot: NDArray[np.float64] = np.asarray(centre, dtype=np.float64)
        return cls(linear, np.asarray(pivot - linear @ pivot + np.asarray(translation), dtype=np.float64))

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points in µm."""
        return np.asarray(points, dtype=np.float64) @ self.matrix.T + self.offset

    def inverse(self) -> Affine:
        """Return the inverse; raises numpy.linalg.LinAlgError when the matrix is singular."""
        inverse = np.asarray(np.linalg.inv(self.matrix), dtype=np.float64)
        return Affine(inverse, -inverse @ self.offset)

    def after(self, first: Affine) -> Affine:
        """Return the transform that applies ``first`` and then this one."""
        return Affine(self.matrix @ first.matrix, self.matrix @ first.offset + self.offset)

    def to_dict(self) -> dict[str, Any]:
        """Describe the transform losslessly in JSON's own types."""
        return {"type": "affine", "matrix": self.matrix.tolist(), "offset": self.offset.tolist()}


@dataclass(frozen=True, eq=False)
class BSpline:
    """A cubic B-spline displacement, ``T(p) = p + sum_k c_k beta3((p - origin) / spacing - k)``, elastix' and ITK's.

    Outside the control points' support, where fewer than four of them reach, the displacement is zero as in ITK.

    Parameters
    ----------
    origin, spacing : (2,) float64
        Place of the first control point and distance between them, ``(x, y)`` in µm.
    coefficients : (2, ny, nx) float64
        Displacement coefficients along x, then along y, in µm.
    """

    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", _frozen(self.origin, (2,)))
        object.__setattr__(self, "spacing", _frozen(self.spacing, (2,)))
        shape = np.shape(self.coefficients)
        if len(shape) != 3 or shape[0] != 2 or min(shape[1:]) < 4:
            raise ValueError(f"B-spline coefficients must be (2, ny >= 4, nx >= 4), not {shape}")
        object.__setattr__(self, "coefficients", _frozen(self.coefficients, shape))

    def displacement(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the ``(N, 2)`` displacement in µm at points in µm."""
        grid = (np.asarray(points, dtype=np.float64) - self.origin) / self.spacing
        rows = grid[:, ::-1].T
        moved = np.stack(
            [ndimage.map_coordinates(c, rows, order=3, mode="constant", prefilter=False) for c in self.coefficients],
            axis=1,
        )
        limits = np.array(self.coefficients.shape[:0:-1], dtype=np.float64) - 2
        moved[~((grid >= 1) & (grid < limits)).all(axis=1)] = 0.0
        return moved

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points in µm."""
        return np.asarray(points, dtype=np.float64) + self.displacement(points)

    def to_dict(self) -> dict[str, Any]:
        """Describe the transform losslessly in JSON's own types."""
        return {
            "type": "bspline",
            "order": 3,
            "origin": self.origin.tolist(),
            "spacing": self.spacing.tolist(),
            "coefficients": self.coefficients.tolist(),
        }


@dataclass(frozen=True)
class Composite:
    """Transforms applied one after the other, the first of ``parts`` first."""

    parts: tuple[Affine | BSpline, ...] = field(default=())

    def map(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map ``(N, 2)`` points in µm."""
        mapped = np.array(points, dtype=np.float64)
        for part in self.parts:
            mapped = part.map(mapped)
        return mapped

    @property
    def is_affine(self) -> bool:
        """Whether it does not bend."""
        return all(isinstance(part, Affine) for part in self.parts)

    def then(self, *parts: Affine | BSpline) -> Composite:
        """Return this transform followed by others."""
        return Composite((*self.parts, *parts))

    def jacobian_determinant(self, points: ArrayLike, step_um: float) -> NDArray[np.float64]:
        """Return ``(N,)`` determinants of the Jacobian by central differences of ``step_um``; <= 0 where it folds."""
        at = np.asarray(points, dtype=np.float64)
        dx, dy = np.array([step_um, 0.0]), np.array([0.0, step_um])
        along_x = (self.map(at + dx) - self.map(at - dx)) / (2 * step_um)
        along_y = (self.map(at + dy) - self.map(at - dy)) / (2 * step_um)
        return np.asarray(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])

    def to_dict(self) -> dict[str, Any]:
        """Describe the transform losslessly in JSON's own types."""
        return {
            "format": "comir-batch transform",
            "version": FORMAT_VERSION,
            "maps": "fixed to moving",
            "unit": "micrometer",
            "axes": ["x", "y"],
            "parts": [part.to_dict() for part in self.parts],
        }


def from_dict(description: dict[str, Any]) -> Composite:
    """Read what ``Composite.to_dict`` wrote.

    Raises
    ------
    ValueError
        If the description has another version, unit or direction, or is incomplete.
    """
    expected = {
        "format": "comir-batch transform",
        "version": FORMAT_VERSION,
        "maps": "fixed to moving",
        "unit": "micrometer",
    }
    for key, value in expected.items():
        if description.get(key) != value:
            raise ValueError(f"not a transform of ours: {key} is {description.get(key)!r}, expected {value!r}")
    try:
        return Composite(tuple(_part(part) for part in description["parts"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"incomplete transform: {error}") from error


def _part(part: dict[str, Any]) -> Affine | BSpline:
    match part["type"]:
        case "affine":
            return Affine(np.array(part["matrix"]), np.array(part["offset"]))
        case "bspline":
            return BSpline(np.array(part["origin"]), np.array(part["spacing"]), np.array(part["coefficients"]))
        case other:
            raise ValueError(f"unknown part {other!r} in a transform; known are affine and bspline")


def _frozen(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"expected an array of shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a transform must be finite")
    array.setflags(write=False)
    return array
