"""A page of sections with words, tables, charts and pictures: what was trained, diagnosed or compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from comir_batch.report import figures
from comir_batch.report.charts import Chart  # noqa: TC001  dataclass fields keep their types readable at run time
from comir_batch.report.data import Link, Provenance
from comir_batch.report.pages import render

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PICTURE_SIDE = 1400
_WIDE = 2.2  # from this ratio of width to height on, a picture takes a row of its own


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below their columns' names; numbers are aligned and rounded, None is a dash. The first column names the row.

    Raises
    ------
    ValueError
        If a row has not a cell for each column.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.columns)} columns: {row}")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture, ``(Y, X, 3)`` uint8 RGB, and what it shows; its longer side is reduced to ``PICTURE_SIDE`` pixels."""

    caption: str
    image: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Section:
    """Part of an article, in this order; all text is plain and untrusted."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Article:
    """A page: a title, a line below it, sections, files beside the page, and how to make it again."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    links: tuple[Link, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


def article_page(article: Article) -> str:
    """Return the page as self-contained HTML: it fetches nothing, runs nothing and needs no server."""
    return render("article.html.j2", script="", article=article, picture=_uri, wide=_is_wide)


def _uri(picture: Picture) -> str:
    return figures.data_uri(figures.fit(picture.image, PICTURE_SIDE), quality=88)


def _is_wide(picture: Picture) -> bool:
    height, width = picture.image.shape[:2]
    return bool(width > _WIDE * height)
