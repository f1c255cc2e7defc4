"""The points of GeoJSON features, out of their nested lists and back into them.

QuPath counts pixels of level 0 from the upper left corner of the image
(https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html), so that pixel centres lie at 0.5;
they are converted here. A cell has its nucleus in `nucleusGeometry` beside its geometry; objects that were exported
with their hierarchy lie in the property `childObjects` of their parents. An ellipse is a polygon marked `isEllipse`,
which QuPath reads back as an upright ellipse: the mark goes, since a transformed one is seldom upright.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

Feature: TypeAlias = dict[str, Any]

_CORNER = 0.5  # from the corner of QuPath's first pixel to its centre
_DECIMALS = 4
_DEPTHS = {"Point": 0, "MultiPoint": 1, "LineString": 1, "MultiLineString": 2, "Polygon": 2, "MultiPolygon": 3}
_UNJOINED = ("Point", "MultiPoint")


@dataclass(frozen=True, slots=True)
class Frame:
    """What a file's coordinates are.

    Attributes
    ----------
    grid : Grid or None
        Level 0 of the slide, for QuPath's pixels of it; None for µm from the centre of the first pixel.
    """

    grid: Grid | None

    def to_um(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(N, 2)`` points in µm."""
        return coordinates if self.grid is None else self.grid.to_um(coordinates - _CORNER)

    def from_um(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(N, 2)`` coordinates of points in µm, rounded to 0.0001."""
        written = points if self.grid is None else self.grid.to_pixels(points) + _CORNER
        return np.round(written, _DECIMALS) + 0.0  # no -0.0


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """Points of a feature, and where they stand in it.

    Attributes
    ----------
    feature : dict
        Whose they are: of a parent or of a child.
    joined : bool
        Whether edges join them; those of a polygon end where they begin.
    coordinates : (N, 2) float64
        As they are written.
    """

    feature: Feature
    joined: bool
    coordinates: NDArray[np.float64]
    _positions: list[Any]

    def replace(self, coordinates: NDArray[np.float64]) -> None:
        """Write other coordinates in their place, ``(M, 2)``; what was closed stays closed."""
        new = coordinates.tolist()
        if not isinstance(self._positions[0], list):
            self._positions[:] = new[0]
            return
        if self._positions[0] == self._positions[-1]:
            new[-1] = new[0]
        self._positions[:] = new


def lines_of(feature: Feature) -> Iterator[Line]:
    """Yield the lines of a feature and of its children, and take off what would not be true of other lines.

    Raises
    ------
    ValueError
        If a geometry is of no known kind, or a position is not two finite numbers.
    KeyError, TypeError, AttributeError
        If the feature has not the parts of one.
    """
    feature.pop("bbox", None)
    for name in ("geometry", "nucleusGeometry"):
        geometry = feature["geometry"] if name == "geometry" else feature.get(name)
        if geometry is not None:
            yield from _lines(feature, geometry)
    for child in children(feature):
        yield from lines_of(child)


def children(feature: Feature) -> list[Feature]:
    """Return the features that QuPath keeps in the properties of their parent; to be changed in place."""
    properties = feature.get("properties") or {}
    found = properties.get("childObjects", [])
    if not isinstance(found, list):
        raise TypeError("childObjects is no list")
    return found


def without(features: list[Feature], lost: set[int]) -> tuple[list[Feature], int]:
    """Return the features whose `id` is not among the lost ones, at every depth, and how many went.

    What has lost its parent goes with it.
    """
    kept, gone = [], 0
    for feature in features:
        if id(feature) in lost:
            gone += count([feature])
            continue
        if below := children(feature):
            below[:], more = without(below, lost)
            gone += more
        kept.append(feature)
    return kept, gone


def count(features: list[Feature]) -> int:
    """Return how many features there are, at every depth."""
    return sum(1 + count(children(feature)) for feature in features)


def _lines(feature: Feature, geometry: dict[str, Any]) -> Iterator[Line]:
    kind = geometry["type"]
    geometry.pop("bbox", None)
    geometry.pop("isEllipse", None)
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _lines(feature, part)
        return
    if kind not in _DEPTHS:
        raise ValueError(f"a geometry of type {kind!r}")
    for positions in _nested(geometry["coordinates"], _DEPTHS[kind]):
        if positions:
            yield Line(feature, kind not in _UNJOINED, _coordinates(positions), positions)


def _nested(coordinates: list[Any], depth: int) -> Iterator[list[Any]]:
    """Yield the lists of positions; the one position itself of depth 0."""
    if depth < 2:
        yield coordinates
        return
    for part in coordinates:
        yield from _nested(part, depth - 1)


def _coordinates(positions: list[Any]) -> NDArray[np.float64]:
    problem = "a position is not two numbers, x and y"
    try:
        found: NDArray[np.float64] = np.atleast_2d(np.array(positions, dtype=np.float64))
    except (ValueError, TypeError) as error:
        raise ValueError(problem) from error
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise ValueError(problem)
    return found
