"""Pages are whole, self-contained and safe, with every field or with hardly any."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.verdict import Verdict
from comir_batch.report.batch_page import THUMBNAIL_LIMIT, batch_page
from comir_batch.report.data import (
    BatchRow,
    BatchSummary,
    CandidateRow,
    Compared,
    Link,
    Maps,
    PairPage,
    SlideFacts,
    StageComparison,
    View,
    WorstPlace,
)
from comir_batch.report.pages import href
from comir_batch.report.pair_page import pair_page

VOID = {"meta", "img", "input", "circle", "path", "rect", "use", "br"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
RAMP = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))


class Page(HTMLParser):
    """The tags of a page; fails on one that is not closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def crashed(**changes):
    slide = SlideFacts("a.ndpi", "dapi")
    return PairPage("skin-02", Verdict.ERROR, ("register: elastix stopped.",), slide, slide, **changes)


def judged(**changes):
    place = WorstPlace(20.0, 15.0, 0.1, RAMP[:8, :8], RAMP[:8, :8], 8.0)
    fields = {"grid": Grid(40, 30, 1.0, 1.0), "slides": View(RAMP, RAMP, RAMP), "worst": (place,)}
    return dataclasses.replace(crashed(), verdict=Verdict.REVIEW, **(fields | changes))


def row(name="skin-01", verdict=Verdict.ACCEPT, **changes):
    return BatchRow(name, verdict, ("It agrees.",), **changes)


@pytest.mark.parametrize(
    "page",
    [
        crashed(log_tail="a\nb"),
        judged(),
        judged(slides=View(RAMP), worst=()),
        judged(slides=View(RAMP, after=RAMP), comirs=View(RAMP, RAMP)),
        judged(grid=None, slides=None),
        judged(maps=Maps(np.full((3, 4), np.nan), None, np.ones((3, 4)), "", None, np.ones((2, 2)))),
    ],
    ids=["crashed", "judged", "fixed only", "no start", "no images", "empty maps"],
)
def test_whatever_is_missing_the_page_is_whole(page):
    read = Page(pair_page(page))
    assert page.pair_id in read.text
    assert page.verdict in read.text
    assert page.reasons[0] in read.text


def test_a_page_fetches_nothing_and_runs_only_its_own_script():
    html = pair_page(judged())
    read = Page(html)
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in read.all("img"))
    assert not read.all("link")
    assert [attrs for attrs in read.all("script") if attrs] == []
    policy = next(meta["content"] for meta in read.all("meta") if "http-equiv" in meta)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy


def test_names_from_outside_stay_text():
    slide = SlideFacts(EVIL, EVIL, details=EVIL)
    page = judged(
        pair_id=EVIL, reasons=(EVIL,), fixed=slide, moving=slide, metrics={EVIL: EVIL}, model=EVIL, model_choice=EVIL,
        assumed=(EVIL,), log_tail=EVIL, links=(Link(EVIL, EVIL, EVIL),), maps=Maps(RAMP, jacobian_note=EVIL),
    )  # fmt: skip
    read = Page(pair_page(page))
    index = Page(
        batch_page([row(EVIL, path=EVIL, modalities=EVIL, model=EVIL)], BatchSummary(EVIL, (EVIL,), notes=(EVIL,)))
    )
    for each in (read, index):
        assert len(each.all("script")) == 1
        assert not any("onerror" in image for image in each.all("img"))
        assert EVIL in each.text


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("pairs/a b/report.html", "pairs/a%20b/report.html"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("a#b?c%.h5", "a%23b%3Fc%25.h5"),
        ("b\udcff.ndpi", "b%FF.ndpi"),
    ],
)
def test_a_path_cannot_become_anything_but_a_path(path, quoted):
    assert href(path) == quoted


def test_a_name_that_is_not_utf_8_can_be_written():
    page = pair_page(dataclasses.replace(crashed(), fixed=SlideFacts("b\udcff.ndpi", "dapi")))
    assert "b\\udcff.ndpi" in page.encode("utf-8").decode("utf-8")


def test_worst_places_are_marked_where_they_are():
    (mark,) = [attrs for attrs in Page(pair_page(judged())).all("i") if "top:" in attrs.get("style", "")]
    assert mark["style"] == "left:51.25%;top:51.667%"


def test_folding_is_said_in_words():
    jacobian = np.ones((10, 10))
    jacobian[0, :3] = -1
    assert "3 % of the map is folded" in Page(pair_page(judged(maps=Maps(jacobian=jacobian)))).text
    assert "Nothing is folded" in Page(pair_page(judged(maps=Maps(jacobian=np.ones((4, 4)))))).text


def test_metrics_that_were_not_measured_are_named_below_the_others():
    text = Page(pair_page(judged(metrics={"raw_z": 9.5, "comir_z": None, "disagreement_um": None}))).text
    assert "9.5" in text
    assert "Not measured: z, CoMIR; Disagreement." in text


def test_candidates_may_have_different_scores():
    rows = (
        CandidateRow(25.0, mirrored=False, scores={"search z": 21.0, "held out z": 9.0}, chosen=True),
        CandidateRow(200.0, mirrored=True, scores={"mutual": 3.0}),
    )
    text = Page(pair_page(judged(candidates=rows))).text
    assert all(words in text for words in ("Search z", "Held out z", "Mutual", "✓ chosen"))


def test_what_needs_an_eye_comes_first_and_else_the_order_stays():
    rows = [row("a"), row("b", Verdict.REVIEW), row("c", Verdict.ERROR), row("d"), row("e", Verdict.REJECT)]
    names = re.findall(r"<bdi>([a-e])</bdi>", batch_page(rows, BatchSummary("run")))
    assert names == ["c", "e", "b", "a", "d"]


def test_the_index_counts_each_verdict():
    page = Page(batch_page([row("a"), row("b"), row("c", Verdict.ERROR)], BatchSummary("run")))
    (bar,) = [attrs for attrs in page.all("div") if attrs.get("class") == "share"]
    assert bar["aria-label"] == "error 1, reject 0, review 0, accept 2"


def test_a_metric_that_a_pair_lacks_is_a_dash():
    rows = [row("a", metrics={"z": 3.0}), row("b", metrics={"z": float("nan")}), row("c")]
    cells = re.findall(r'<td class="n" data-value="(.*?)">(.*?)</td>', batch_page(rows, BatchSummary("run", ("z",))))
    assert cells[::3] == [("3.0", "3"), ("", "\N{EN DASH}"), ("", "\N{EN DASH}")]


@pytest.mark.parametrize(("count", "pictures"), [(2, 2), (THUMBNAIL_LIMIT + 1, 0)])
def test_a_long_index_has_no_pictures(count, pictures):
    thumbnail = np.zeros((8, 8, 3), np.uint8)
    page = Page(batch_page([row(str(index), thumbnail=thumbnail) for index in range(count)], BatchSummary("run")))
    assert len(page.all("img")) == pictures
    assert ("left out" in page.text) == (pictures == 0)


def test_the_plan_stands_beside_what_was_taken():
    stages = (
        StageComparison("warp", 3, 4, Compared(60.0, 90.0), 120.0, Compared(600, 1500), 1400, Compared(2000, 500), 7.0),
        StageComparison("represent", 4, 4, None, 30.0, Compared(900, 900), 0, Compared(0, 0)),
    )
    text = Page(batch_page([row("a")], BatchSummary("run", comparisons=stages))).text
    warp, represent = re.findall(r"(?:warp|represent).*?(?=represent|Of the slides)", " ".join(text.split()))
    for shown in ("7.0 s that was begun anew", "3 of 4", "1 min 30 s", "1.5", "held 1.4 GB", "2.5", "0.25"):
        assert shown in warp
    assert "on a GPU" in represent


def test_a_run_without_pairs_has_an_index():
    assert "0 pairs" in Page(batch_page([], BatchSummary("run"))).text


def test_images_must_lie_on_the_grid():
    with pytest.raises(ValueError, match="on a grid of None"):
        judged(grid=None)
    with pytest.raises(ValueError, match="the fixed image"):
        View(RAMP, RAMP[1:])
