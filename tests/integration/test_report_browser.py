"""The pages in a real browser, opened from a file: the viewer's modes, the index's order and filter, dark and print."""

from __future__ import annotations

import html
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import report_samples as samples

from comir_batch.report import figures
from comir_batch.report.article import Article, Picture, Section, Table, article_page
from comir_batch.report.batch_page import batch_page
from comir_batch.report.charts import Series, histogram, lines, scatter
from comir_batch.report.pair_page import pair_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-sync", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--virtual-time-budget=900"),
)


class Browser:
    """Headless Chromium with an empty profile for each call; fails if a page complains on its console."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def dom(self, page, fragment=""):
        return self._run(page, fragment, "--dump-dom")

    def screenshot(self, page, fragment="", *, dark=False):
        picture = self.folder / "shot.png"
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        self._run(page, fragment, f"--screenshot={picture}", "--window-size=1000,1100", scheme)
        return cv2.imread(str(picture)).astype(int)

    def pdf(self, page):
        document = self.folder / "page.pdf"
        self._run(page, "", f"--print-to-pdf={document}")
        return document.read_bytes()

    def _run(self, page, fragment, *flags):
        profile = self.folder / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, f"{page.as_uri()}#{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        assert complaints == []
        return done.stdout


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next((path for path in map(shutil.which, NAMES) if path), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is on the PATH")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def sections(shared_data):
    return samples.pair(*samples.fluorescence(shared_data))


@pytest.fixture(scope="module")
def stains():
    return samples.pair(*samples.brightfield(), photometric="brightfield", mpp=0.5)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder, with 'odd' name")

    def write(name, text):
        page = folder / f"{name}.html"
        page.write_text(text, encoding="utf-8")
        return page

    return write


@pytest.fixture(scope="module")
def page(stains, write):
    return write("pair", pair_page(stains))


def shown(dom):
    """Return the frames that the viewer shows, as {(layer, role): part}."""
    frames = re.findall(r'<figure class="frame"[^>]*>', dom)
    found = [{key: re.search(f'data-{key}="(.*?)"', frame)[1] for key in ("layer", "role", "part")} for frame in frames]
    return {(frame["layer"], frame["role"]): frame["part"] for frame in found if frame["part"]}


def driven(text, script):
    """Return a page that also runs a script of the test, once its own has run."""
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    return free.replace("</body>", f"<script>{script}</script></body>")


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("", {("slides", "overlay-after"): "alone"}),
        ("when=before", {("slides", "overlay-before"): "alone"}),
        ("mode=side&layer=comirs", {("comirs", "fixed"): "fixed", ("comirs", "after"): "moving"}),
        ("mode=curtain&when=before&mix=20", {("slides", "fixed"): "fixed", ("slides", "before"): "moving"}),
        ("mode=nonsense&when=%3Cimg%3E&zoom=x", {("slides", "overlay-after"): "alone"}),
    ],
)
def test_the_address_chooses_what_the_viewer_shows(browser, page, fragment, expected):
    dom = browser.dom(page, fragment)
    assert shown(dom) == expected
    assert "<title>skin-01 · accept</title>" in dom


@pytest.mark.slow
def test_every_mode_looks_different(browser, sections, write):
    page = write("sections", pair_page(sections))
    modes = ("overlay", "side", "opacity", "curtain", "flicker", "checker")
    shots = [browser.screenshot(page, f"mode={mode}") for mode in modes]
    for index, shot in enumerate(shots):
        assert shot[400:].std() > 10
        assert all(np.abs(shot[400:] - other[400:]).mean() > 1 for other in shots[:index])


def test_the_curtain_parts_fixed_from_moving(browser, sections, write):
    page = write("curtain", pair_page(sections))
    blue, _, red = np.moveaxis(browser.screenshot(page, "mode=curtain&mix=50")[600:, 200:800], 2, 0)
    left, right = np.s_[:, :290], np.s_[:, 310:]
    assert blue[left].mean() > 2 * red[left].mean()
    assert red[right].mean() > 2 * blue[right].mean()


def test_keys_and_buttons_drive_the_viewer(browser, stains, write):
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '%s', bubbles: true}));"
    script = "".join(press % key for key in "3bc+") + "document.querySelector('[data-zoom=in]').click();"
    dom = browser.dom(write("driven", driven(pair_page(stains), script)))
    assert shown(dom) == {("comirs", "fixed"): "fixed", ("comirs", "before"): "moving"}
    assert re.search(r"<output>2\.[23]", dom)


def test_a_worst_place_can_be_brought_into_view(browser, stains, write):
    script = "document.querySelectorAll('.places button')[1].click(); document.title = location.hash;"
    dom = browser.dom(write("worst", driven(pair_page(stains), script)))
    where = dict(part.split("=") for part in re.search(r"<title>#(.*?)</title>", dom)[1].split("&amp;"))
    place, grid = stains.worst[1], stains.grid
    middle = float(where["x"]) + 0.5 / float(where["zoom"])
    assert middle * grid.size_um[0] == pytest.approx(place.x_um + grid.mpp_x / 2, abs=1)
    assert where["marks"] == "on"


def test_a_crashed_pair_has_a_page(browser, write):
    dom = browser.dom(write("crashed", pair_page(samples.crashed())))
    assert "too many samples map outside" in dom
    assert "iteration 11 &lt;metric&gt;" in dom


def test_the_index_sorts_and_filters_a_thousand_pairs(browser, write):
    rows, summary = samples.batch(1000)
    dom = browser.dom(write("batch", batch_page(rows, summary)), "verdict=review,reject&q=skin&sort=-comir_z")
    body = dom[dom.index("<tbody>") : dom.index("</tbody>")]
    visible = [part for part in body.split("<tr ")[1:] if "hidden" not in part[: part.index(">")]]
    values = [float(re.search(r'<td class="n" data-value="(.*?)">', part)[1]) for part in visible]
    expected = sum(row.verdict in {"review", "reject"} and "skin" in row.pair_id for row in rows)
    assert len(visible) == expected > 100
    assert values == sorted(values, reverse=True)
    assert f"{expected} of 1000 shown" in dom


def test_pairs_without_a_value_come_last_in_either_order(browser, write):
    rows, summary = samples.batch(40)
    page = write("short", batch_page(rows, summary))
    for order in ("comir_z", "-comir_z"):
        body = browser.dom(page, f"sort={order}").split("<tbody>")[1]
        values = re.findall(r'</td>\s*<td class="n" data-value="(.*?)">', body.split("</tbody>")[0])[::5]
        assert "" in values
        assert "" not in values[: values.index("")]
        assert set(values[values.index("") :]) == {""}


def test_the_index_follows_the_colour_scheme(browser, write, sections):
    thumbnail = figures.fit(figures.overlay(sections.slides.fixed, sections.slides.after), 96)
    page = write("scheme", batch_page(*samples.batch(60, thumbnail)))
    assert browser.screenshot(page)[:, :8].mean() > 200
    assert browser.screenshot(page, dark=True)[:, :8].mean() < 60


def charts():
    x, rng = np.linspace(0, 360, 25), np.random.default_rng(0)
    points = rng.normal(size=(2, 2, 30))
    return (
        lines("Curves", [Series("dapi", x, np.cos(x) ** 2), Series("w" * 80, x, x / 360)], "angle (°)", "correlation"),
        scatter("Map", [Series(str(k), *each) for k, each in enumerate(points)], "one", "two", links=True, equal=True),
        histogram("Values", {"true": rng.random(50), "wrong": rng.random(50) - 0.5}, "correlation"),
    )


@pytest.fixture(scope="module")
def article(write):
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (60, 4, 3))
    table = Table("Figures", tuple(f"column {k}" for k in range(12)), (("row" * 30, *range(11)),))
    section = Section("All", ("word " * 60, "w" * 300), (table,), charts(), (Picture("Wide", ramp),))
    return write("article", article_page(Article("A title " + "w" * 90, "below", (section,))))


@pytest.mark.parametrize("width", [340, 1000])
def test_an_article_does_not_overflow(browser, article, write, width):
    page = html.escape(article.read_text(encoding="utf-8"))
    script = "onload = () => { document.title = frames[0].document.documentElement.scrollWidth; };"
    frame = f'<iframe style="border:0;width:{width}px;height:600px" srcdoc="{page}"></iframe>'
    dom = browser.dom(write(f"framed-{width}", f"<!doctype html><script>{script}</script>{frame}"))
    assert 0 < int(re.search(r"<title>(\d+)</title>", dom)[1]) <= width


def test_charts_are_drawn_in_their_colours_on_light_and_dark(browser, article):
    for dark in (False, True):
        shot = browser.screenshot(article, dark=dark)
        for blue, green, red in ((178, 114, 0), (0, 94, 213)):
            near = np.abs(shot - np.array([blue, green, red])).sum(axis=2) < 12
            assert near.sum() > 150


def test_a_page_prints(browser, page):
    document = browser.pdf(page)
    assert document.startswith(b"%PDF")
    assert document.count(b"/Subtype /Image") >= 10
