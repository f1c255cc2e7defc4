"""Points and annotations of one slide, brought to the other by a transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.errors import MissingPixelSizeError, UserError
from comir_batch.io.geojson import Copied, Copying, copy_geojson
from comir_batch.io.geojson_features import Frame
from comir_batch.io.point_tables import create_table, read_chunks
from comir_batch.warp.points import Way, subdivided

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.io.point_tables import Chunk, Unit
    from comir_batch.pipeline.known_slides import Known, Side


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes
    ----------
    source, out : Path
        Files; their suffixes tell the formats.
    known : Known
        The transform, and the pixels of both slides as far as they are known.
    inverse : bool
        From the moving slide to the fixed one.
    to_unit : {"um", "px"} or None
        Of the output; None for the input's.
    strict : bool
        Whether a point that has no place on the other slide is an error.
    """

    source: Path
    out: Path
    known: Known
    inverse: bool = False
    to_unit: Unit | None = None
    strict: bool = False

    @property
    def way(self) -> Way:
        """From which slide to which."""
        return Way(self.known.transform, self.inverse)

    def grid(self, end: Literal["source", "target"], unit: Unit) -> Grid | None:
        """Return the pixels of the slide that is left or reached; None for µm."""
        if unit == "um":
            return None
        side: Side = "moving" if self.inverse == (end == "source") else "fixed"
        try:
            found = self.known.grid(side)
        except MissingPixelSizeError as error:
            raise UserError(f"the file of the {side} slide has no pixel size. Give --{side}-mpp UM") from error
        if found is None:
            remedy = f"Give --{side} SLIDE or --{side}-mpp UM, or the pair's folder of a run for --transform"
            raise UserError(f"{self.source}: pixels need the pixel size of the {side} slide. {remedy}")
        return found

    def require_places(self, lost: int, what: str) -> None:
        """Raise UserError if some have none, and that is an error."""
        if self.strict and lost:
            remedy = "Nothing was written; leave out --strict, or give another transform"
            raise UserError(f"{self.source}: {lost} {what} have no one place on the other slide. {remedy}")


@dataclass(frozen=True, slots=True)
class Done:
    """What was written.

    Attributes
    ----------
    total : int
        Points, or features, that were read.
    lost : int
        Those of them without a place on the other slide.
    """

    total: int
    lost: int


def transform_points(request: Request) -> Done:
    """Write a table of points of one slide as points of the other, chunk by chunk.

    Points without a place on the other slide, because the transform folds there, get empty cells, and empty cells stay.
    All other columns are as they were.

    Raises
    ------
    UserError
        If the table cannot be read or written, a pixel size is missing, or, if `strict`, a point has no place.
    """
    total = lost = 0
    with create_table(request.out) as sink:
        for chunk in read_chunks(request.source):
            moved = _moved(request, chunk)
            sink.write(moved.columns)
            total += len(chunk.points)
            lost += int((np.isnan(moved.points) & ~np.isnan(chunk.points)).any(axis=1).sum())
        request.require_places(lost, "points")
    return Done(total, lost)


def transform_geojson(request: Request, unit: Unit, longest_edge_um: float | None) -> Done:
    """Write annotations of one slide as annotations of the other, feature after feature.

    Parameters
    ----------
    request : Request
        What is asked.
    unit : {"um", "px"}
        Of the input; pixels are QuPath's.
    longest_edge_um : float or None
        Edges longer than this get points in between, so that they bend as the transform does; None for no more points.

    Raises
    ------
    UserError
        If the file cannot be read or written, a pixel size is missing, or, if `strict`, a feature has no place.
    """
    source, target = request.grid("source", unit), request.grid("target", request.to_unit or unit)

    def change(lines: list[tuple[NDArray[np.float64], bool]]) -> list[NDArray[np.float64]]:
        return _on_the_other(request.way, lines, longest_edge_um)

    def check(copied: Copied) -> None:
        request.require_places(copied.lost, "features")

    copied = copy_geojson(request.source, request.out, Copying(Frame(source), Frame(target), change, check))
    return Done(copied.features, copied.lost)


def _moved(request: Request, chunk: Chunk) -> Chunk:
    to_unit = request.to_unit or chunk.unit
    source, target = request.grid("source", chunk.unit), request.grid("target", to_unit)
    points = request.way.map(chunk.points if source is None else source.to_um(chunk.points))
    return chunk.moved(points if target is None else target.to_pixels(points), to_unit)


def _on_the_other(
    way: Way, lines: list[tuple[NDArray[np.float64], bool]], longest: float | None
) -> list[NDArray[np.float64]]:
    """Map many lines at once, which takes hardly longer than one."""
    if not lines:
        return []
    dense = [subdivided(line, longest) if joined and longest else line for line, joined in lines]
    ends = np.cumsum([len(line) for line in dense])
    return np.split(way.map(np.concatenate(dense)), ends[:-1])
