"""A page of sections is whole, self-contained and safe."""

from __future__ import annotations

import numpy as np
import pytest
from test_report_pages import EVIL, Page

from comir_batch.report.article import Article, Picture, Section, Table, article_page
from comir_batch.report.charts import Series, lines
from comir_batch.report.data import Link, Provenance

RAMP = np.tile(np.linspace(0, 255, 90, dtype=np.uint8)[None, :, None], (30, 1, 3))


def article(words="Fine."):
    chart = lines(words, [Series(words, [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])], words, words)
    table = Table(words, (words, "success", "note"), ((words, 0.98765, words), ("b", None, "-"), ("c", 3, "")))
    section = Section(words, (words, words), (table,), (chart,), (Picture(words, RAMP), Picture("b", RAMP[:, :30])))
    return Article(
        words,
        words,
        (section, Section("Nothing")),
        (Link(words, words, words),),
        Provenance(version="1", command=words),
    )


def test_a_page_fetches_nothing_and_runs_nothing():
    page = Page(article_page(article()))
    assert page.all("script") == []
    assert page.all("link") == []
    assert [anchor["href"] for anchor in page.all("a")] == ["Fine."]
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_text_from_outside_stays_text():
    page = Page(article_page(article(EVIL)))
    assert page.all("script") == []
    assert not any("onerror" in image for image in page.all("img"))
    assert page.text.count(EVIL) >= 9


def test_numbers_are_rounded_and_what_is_missing_is_a_dash():
    text = Page(article_page(article())).text
    assert "0.9877" in text
    assert "\N{EN DASH}" in text


def test_a_wide_picture_has_a_row_of_its_own():
    figures = Page(article_page(article())).all("figure")
    assert [figure.get("class") for figure in figures] == [None, "row", None]


def test_a_table_must_be_filled():
    with pytest.raises(ValueError, match="1 cells in a table of 2 columns"):
        Table("t", ("a", "b"), (("only",),))
