"""Queries answered: rows for a terminal and a CSV, and a page with pictures."""

from __future__ import annotations

import csv
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

import comir_batch
from comir_batch.core.errors import ManifestError, Problem, SlideError
from comir_batch.pipeline.files import write_text
from comir_batch.report.article import Article, Picture, Section, Table, article_page
from comir_batch.report.data import Provenance
from comir_batch.report.figures import displayed, panel
from comir_batch.retrieval.find import Finder, best_of_each, margin
from comir_batch.retrieval.index import Index
from comir_batch.retrieval.query_image import open_query, require_known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.pipeline.representing import SlideRow
    from comir_batch.representation.device import Device
    from comir_batch.retrieval.find import LookUp, Match

COLUMNS = ("query", "rank", "slide_id", "score", "margin", "x_um", "y_um", "angle_deg", "mirrored", "looked_up")
_PICTURED = 5
_SIDE = 320


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """What to look for, and where.

    Attributes
    ----------
    index : Path
        Folder of the index.
    rows : tuple of SlideRow
        The images; row 0 for one that no table names.
    top : int
        Slides to tell of.
    verified : int
        Places that are compared pixel by pixel.
    look_up : {"auto", "all", "shortlist"}
        See `find.Finder`.
    """

    index: Path
    rows: tuple[SlideRow, ...]
    top: int
    verified: int
    device: Device = "auto"
    look_up: LookUp = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was found for one image.

    Attributes
    ----------
    grid : Grid
        The image's pixels in µm.
    thumbnail : (C, Y, X)
        In the image's dtype.
    matches : tuple of Match
        The best place in each slide, best first.
    margin : float
        See `find.margin`, over all places, in whichever slide.
    looked_up : {"all", "shortlist"}
        How, once it was chosen.
    """

    name: str
    grid: Grid
    thumbnail: NDArray[np.generic]
    matches: tuple[Match, ...]
    margin: float
    looked_up: LookUp


def answer(request: QueryRequest, say: Callable[[str], object]) -> Iterator[Answer]:
    """Look for images, one after the other.

    Raises
    ------
    ConfigError, ModelError
        If the index cannot be used.
    SlideError
        If a single image cannot be used; in a table, such rows are told of and left out.
    ManifestError
        If no row of a table can be used.
    """
    index = Index.open(request.index)
    for row in request.rows:
        require_known(index.model, row.modality)
    finder, bad = Finder(index, request.verified, request.look_up), []
    for row in request.rows:
        searched = finder.searched(row.modality)
        try:
            grids = [slide.represented.grid for slide in searched]
            image = open_query(row.spec, row.modality, index.model, request.device, grids, say)
            places = finder.places(image, searched)
        except SlideError as error:
            if not row.row:
                raise
            bad.append(Problem(row.row, "path", str(error), "Mend the image, or leave the row out"))
            say(f"{row.name}: {error}")
            continue
        best = tuple(best_of_each(places)[: request.top])
        if not best:
            say(f"{row.name}: found nowhere, no slide overlaps it enough; check that it is not blank")
        yield Answer(row.name, image.grid, image.thumbnail, best, margin(places), finder.chosen(image, searched))
    if bad and len(bad) == len(request.rows):
        raise ManifestError(bad)


def cells_of(each: Answer) -> list[tuple[str, ...]]:
    """Return a row of `COLUMNS` for each match, the margin at the first; one without a slide where there is none."""
    if not each.matches:
        return [(each.name, *("",) * (len(COLUMNS) - 2), each.looked_up)]
    rows: list[tuple[str, ...]] = []
    for rank, match in enumerate(each.matches, start=1):
        x, y = match.middle(each.grid)
        rows.append(
            (
                each.name,
                str(rank),
                match.slide.name,
                f"{match.score:.3g}" if match.verified else f"({match.score:.2f})",
                f"{each.margin:.2f}" if rank == 1 and match.verified else "",
                f"{x:.1f}",
                f"{y:.1f}",
                f"{match.angle:.1f}",
                "yes" if match.mirrored else "no",
                each.looked_up,
            )
        )
    return rows


def write_answers(
    answers: Iterable[Answer], table: Path | None, page: Path | None, command: tuple[str, ...]
) -> list[tuple[str, ...]]:
    """Take answers as they come, write each to a CSV at once, and all to a page with pictures; return all rows.

    The page is self-contained: each query beside its best places, drawn on the slides' thumbnails.

    Parameters
    ----------
    answers : iterable of Answer
        None of them is kept, so that memory does not grow with images.
    table, page : Path or None
        Files, where they are wanted.
    command : tuple of str
        For the page.
    """
    rows, sections = [], []
    with _table(table) as add:
        for each in answers:
            told = cells_of(each)
            add(told)
            rows += told
            if page is not None:
                sections.append(_section(each))
    if page is not None:
        made_by = Provenance(version=comir_batch.__version__, command=" ".join(command), seeds={})
        said = f"Images looked for: {len(sections)}"
        write_text(page, article_page(Article("Retrieval", said, tuple(sections), (), made_by)))
    return rows


@contextmanager
def _table(path: Path | None) -> Iterator[Callable[[Iterable[tuple[str, ...]]], None]]:
    """Open a table, and yield what adds rows to it that can be read at once; without a path, nothing is written."""
    if path is None:
        yield lambda _rows: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")

        def add(rows: Iterable[tuple[str, ...]]) -> None:
            writer.writerows(rows)
            stream.flush()

        add([COLUMNS])
        yield add


def _section(each: Answer) -> Section:
    rows = tuple(cells[1:] for cells in cells_of(each))
    table = Table(
        "Places of the image's middle, in µm of the slide; scores in brackets were not verified", COLUMNS[1:], rows
    )
    pictures = [_rgb(each.thumbnail), *(_marked(match, each) for match in each.matches[:_PICTURED])]
    titles = [each.name, *(f"{rank}: {match.slide.name}" for rank, match in enumerate(each.matches[:_PICTURED], 1))]
    return Section(each.name, (), (table,), (), (Picture("", panel(pictures, titles, height=_SIDE)),))


def _marked(match: Match, each: Answer) -> NDArray[np.uint8]:
    """Return a slide's thumbnail with the outline of the query on it, its upper edge thicker."""
    overview, grid = match.slide.represented.overview(), each.grid
    canvas = np.ascontiguousarray(_rgb(overview.pixels))
    corners = match.transform.map(grid.corners_um()[[0, 1, 3, 2]])
    points = overview.grid.to_pixels(corners).round().astype(np.int32)
    width = max(canvas.shape[0] // 200, 1)
    cv2.polylines(canvas, [points], isClosed=True, color=(255, 210, 0), thickness=width)
    cv2.line(canvas, points[0].tolist(), points[1].tolist(), (255, 210, 0), 3 * width)
    return canvas


def _rgb(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    if len(pixels) == 3 and pixels.dtype == np.uint8:
        return displayed(np.moveaxis(pixels, 0, -1))
    plane = np.nan_to_num(pixels.astype(np.float32).max(axis=0))
    low, high = float(plane.min()), float(plane.max())
    return displayed((plane - low) / max(high - low, 1e-6))
