"""elastix' parameter files as plain maps, and its transforms as the vocabulary's.

A parameter map holds lines such as ``(GridSize 29 29)`` as ``{"GridSize": ("29", "29")}``; text stands without quotes.
elastix applies its initial transform first, so a chain of maps is a composite in the order of the files.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from comir_batch.core.errors import RegistrationError
from comir_batch.core.transform import Affine, BSpline, Composite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

ParameterMap: TypeAlias = "dict[str, tuple[str, ...]]"

_LINE = re.compile(r"^\s*\(\s*(\w+)\s+(.*?)\s*\)\s*$")
_VALUE = re.compile(r'"([^"]*)"|(\S+)')
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def parse(text: str) -> ParameterMap:
    """Read a parameter file's text; comments and blank lines are skipped."""
    lines = (_LINE.match(line.split("//", 1)[0]) for line in text.splitlines())
    return {line[1]: tuple(quoted or bare for quoted, bare in _VALUE.findall(line[2])) for line in lines if line}


def render(parameters: ParameterMap) -> str:
    """Write a parameter map as elastix reads it: numbers bare, all else in quotes."""
    return "".join(f"({key} {' '.join(map(_quoted, values))})\n" for key, values in parameters.items())


def to_transform(parameters: ParameterMap) -> Affine | BSpline:
    """Return the transform that a map of elastix describes, without its initial transform.

    Euler, similarity, affine, translation and cubic B-spline transforms in two dimensions are known.

    Raises
    ------
    RegistrationError
        If it is another transform, or the map is incomplete.
    """
    try:
        kind = parameters["Transform"][0]
        reader = _reader(kind)
        if reader is None or parameters["FixedImageDimension"] != ("2",):
            raise RegistrationError(f"cannot read elastix' transform {kind}: not a known transform in two dimensions")
        return reader(parameters, _numbers(parameters, "TransformParameters"))
    except (KeyError, ValueError) as error:
        raise RegistrationError(f"elastix' transform parameters are incomplete or wrong: {error}") from error


def is_known_transform(parameters: ParameterMap) -> bool:
    """Tell whether `to_transform` can read what elastix makes of a parameter map."""
    return _reader(parameters.get("Transform", ("",))[0]) is not None


def read_chain(paths: Iterable[Path]) -> Composite:
    """Return the composite of several TransformParameters files, the first applied first."""
    return Composite(tuple(to_transform(parse(path.read_text(encoding="utf-8"))) for path in paths))


def write_chain(transform: Composite, grid: Grid, folder: Path, stem: str) -> Path | None:
    """Write each part as ``<stem>.<n>.txt``, linked by their initial transforms, and return the last file.

    Parameters
    ----------
    transform : Composite
        Fixed µm to moving µm.
    grid : Grid
        The fixed image's, which the files name as their domain.
    folder : Path
        Where to write.
    stem : str
        Beginning of the files' names.

    Returns
    -------
    Path or None
        None for the identity, which needs no file.
    """
    last: Path | None = None
    for number, part in enumerate(transform.parts):
        path = folder / f"{stem}.{number}.txt"
        path.write_text(render(to_map(part, grid, last)), encoding="utf-8")
        last = path
    return last


def to_map(part: Affine | BSpline, grid: Grid, initial: Path | None) -> ParameterMap:
    """Return the map of elastix for one part, to be applied after the one in the file ``initial`` beside it."""
    own = _affine_map(part) if isinstance(part, Affine) else _bspline_map(part)
    return {
        **own,
        "NumberOfParameters": (str(len(own["TransformParameters"])),),
        "InitialTransformParameterFileName": (initial.name if initial else "NoInitialTransform",),
        "UseBinaryFormatForTransformationParameters": ("false",),
        "HowToCombineTransforms": ("Compose",),
        "FixedImageDimension": ("2",),
        "MovingImageDimension": ("2",),
        "FixedInternalImagePixelType": ("float",),
        "MovingInternalImagePixelType": ("float",),
        "Size": (str(grid.width), str(grid.height)),
        "Index": ("0", "0"),
        "Spacing": _texts([grid.mpp_x, grid.mpp_y]),
        "Origin": _texts([grid.origin_x, grid.origin_y]),
        "Direction": ("1", "0", "0", "1"),
        "UseDirectionCosines": ("true",),
        "ResampleInterpolator": ("FinalLinearInterpolator",),
        "Resampler": ("DefaultResampler",),
        "DefaultPixelValue": ("0",),
    }


def _affine_map(part: Affine) -> ParameterMap:
    return {
        "Transform": ("AffineTransform",),
        "TransformParameters": _texts([*part.matrix.ravel(), *part.offset]),
        "CenterOfRotationPoint": ("0", "0"),
    }


def _bspline_map(part: BSpline) -> ParameterMap:
    _, rows, columns = part.coefficients.shape
    return {
        "Transform": ("BSplineTransform",),
        "TransformParameters": _texts(part.coefficients.ravel()),
        "GridSize": (str(columns), str(rows)),
        "GridIndex": ("0", "0"),
        "GridSpacing": _texts(part.spacing),
        "GridOrigin": _texts(part.origin),
        "GridDirection": ("1", "0", "0", "1"),
        "BSplineTransformSplineOrder": ("3",),
        "UseCyclicTransform": ("false",),
    }


def _euler(parameters: ParameterMap, values: NDArray[np.float64]) -> Affine:
    angle, *shift = values
    return Affine.about(_rotation(angle), _numbers(parameters, "CenterOfRotationPoint"), shift)


def _similarity(parameters: ParameterMap, values: NDArray[np.float64]) -> Affine:
    scale, angle, *shift = values
    return Affine.about(scale * _rotation(angle), _numbers(parameters, "CenterOfRotationPoint"), shift)


def _affine(parameters: ParameterMap, values: NDArray[np.float64]) -> Affine:
    return Affine.about(values[:4].reshape(2, 2), _numbers(parameters, "CenterOfRotationPoint"), values[4:])


def _translation(_parameters: ParameterMap, values: NDArray[np.float64]) -> Affine:
    return Affine(np.eye(2), values)


def _bspline(parameters: ParameterMap, values: NDArray[np.float64]) -> BSpline:
    for key, expected in (("GridIndex", [0, 0]), ("GridDirection", [1, 0, 0, 1]), ("BSplineTransformSplineOrder", [3])):
        if key in parameters and not np.array_equal(_numbers(parameters, key), expected):
            raise ValueError(f"{key} is {' '.join(parameters[key])}, only {expected} is known")
    columns, rows = _numbers(parameters, "GridSize").astype(int)
    spacing, origin = _numbers(parameters, "GridSpacing"), _numbers(parameters, "GridOrigin")
    return BSpline(origin, spacing, values.reshape(2, rows, columns))


_READERS: dict[str, Callable[[ParameterMap, NDArray[np.float64]], Affine | BSpline]] = {
    "Euler": _euler,
    "Similarity": _similarity,
    "Affine": _affine,
    "Translation": _translation,
    "BSpline": _bspline,
}


def _reader(kind: str) -> Callable[[ParameterMap, NDArray[np.float64]], Affine | BSpline] | None:
    return _READERS.get(kind.removesuffix("Transform").removeprefix("Recursive"))


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _numbers(parameters: ParameterMap, key: str) -> NDArray[np.float64]:
    return np.array([float(value) for value in parameters[key]], dtype=np.float64)


def _texts(values: Sequence[float] | NDArray[np.float64]) -> tuple[str, ...]:
    return tuple(repr(float(value)) for value in values)


def _quoted(value: str) -> str:
    return value if _NUMBER.fullmatch(value) else f'"{value}"'
