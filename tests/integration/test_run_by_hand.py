"""A person's way back: decisions that stand beside the verdict, and settings for one pair alone."""

from __future__ import annotations

import json

import pytest
import runs
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.run_lock import RunLock

pytestmark = pytest.mark.slow

STRICT = {"accept_z": 1e6, "review_z": 1e6}


def command(*words):
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def test_an_accepted_pair_that_a_person_rejects_counts_as_rejected_and_can_be_taken_back(slides, copied):
    done = command("review", copied, "p1", "reject", "--note", "the fold, top left")
    assert done.exit_code == 0, done.output
    assert "aligned images stay" in done.output
    row = runs.results(copied)["p1"]
    assert (row["verdict"], row["decision"], row["note"]) == ("accept", "reject", "the fold, top left")
    assert row["decided_by"]
    for page in (copied / "report.html", copied / "pairs" / "p1" / "report.html"):
        assert "the fold, top left" in page.read_text()
    before = runs.snapshot(copied)
    since = len(runs.lines(copied / "records.jsonl"))
    summary = runs.run_here(slides / "manifest.csv", copied, export={"ome_tiff": True})
    assert summary.exit_code == 4
    assert runs.tasks(copied, since) == []
    changed = {name for name, time in runs.snapshot(copied).items() if before.get(name) != time}
    assert changed <= {"run.json", "report.html", "results.csv", "costs.json"}
    assert "the fold, top left" in (copied / "report.html").read_text()
    assert runs.results(copied)["p1"] == row
    assert command("review", copied, "p1", "accept").exit_code == 0
    assert runs.run_here(slides / "manifest.csv", copied, export={"ome_tiff": True}).exit_code == 0
    assert "the fold" not in (copied / "pairs" / "p1" / "report.html").read_text()


def test_a_rejected_pair_that_a_person_accepts_gets_its_images_with_the_next_run(slides, copied, undisturbed):
    assert runs.run_here(slides / "manifest.csv", copied, judge=STRICT).exit_code == 4
    assert not (copied / "pairs" / "p1" / "aligned.ome.zarr").exists()
    done = command("review", copied, "p1", "accept", "--note", "looked at it")
    assert "aligned images are not there yet" in done.output
    summary = runs.run_here(slides / "manifest.csv", copied, judge=STRICT)
    assert summary.exit_code == 0
    runs.assert_same_result(copied, undisturbed)
    row = runs.results(copied)["p1"]
    assert (row["verdict"], row["decision"]) == ("reject", "accept")
    assert "looked at it" in (copied / "pairs" / "p1" / "report.html").read_text()
    since = len(runs.lines(copied / "records.jsonl"))
    runs.run_here(slides / "manifest.csv", copied, judge=STRICT)
    assert runs.tasks(copied, since) == []


def test_settings_for_one_pair_change_that_pair_alone_and_stay(slides, copied):
    two = runs.write_manifest(
        slides / "two.csv",
        "p1,fixed.ome.tif,moving.ome.tif,stain,negative",
        "p2,fixed.ome.tif,moving.ome.tif,stain,negative",
    )
    runs.run_here(two, copied, export={"ome_tiff": True})
    assert command("review", copied, "p2", "reject").exit_code == 0
    kept = {name: time for name, time in runs.snapshot(copied).items() if name.startswith("pairs/p1/")}
    done = command("rerun", copied, "--pair", "p2", "--set", "register.grid_um=48", "--executor", "serial")
    assert done.exit_code == 0, done.output
    assert {name: time for name, time in runs.snapshot(copied).items() if name.startswith("pairs/p1/")} == kept
    first, second = (runs.transform(copied, pair).parts[-1].spacing for pair in ("p1", "p2"))
    assert second[0] < 0.8 * first[0]  # elastix makes spacings fit the image
    assert runs.results(copied)["p2"]["decision"] == ""  # it was on the other transform
    assert "register.grid_um is 48" in (copied / "pairs" / "p2" / "report.html").read_text()
    assert json.loads((copied / "run.json").read_text())["by_hand"]["p2"]["settings"] == {"register": {"grid_um": 48}}
    since = len(runs.lines(copied / "records.jsonl"))
    runs.run_here(two, copied, export={"ome_tiff": True})
    assert runs.tasks(copied, since) == []
    done = command("rerun", copied, "--pair", "p2", "--forget", "--executor", "serial")
    assert done.exit_code == 1  # the decision stands again, since the transform that it was on is back
    assert runs.results(copied)["p2"]["decision"] == "reject"
    assert runs.transform(copied, "p2").parts[-1].spacing[0] == first[0]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("review", "{run}", "p9", "accept"), 3, "has no pair p9. It has p1"),
        (("review", "{run}/pairs", "p1", "accept"), 3, "is not a run directory"),
        (("review", "{run}", "p1", "maybe"), 2, "maybe"),
        (("rerun", "{run}", "--pair", "p9", "--set", "register.seed=2"), 3, "has no pair p9"),
        (("rerun", "{run}", "--pair", "p1", "--set", "register.sead=2"), 3, "register.sead"),
        (("rerun", "{run}", "--pair", "p1", "--set", "execution.workers=2"), 3, "cannot be set for single pairs"),
        (("rerun", "{run}", "--pair", "p1"), 2, "nothing to change"),
        (("rerun", "{run}", "--pair", "p1", "--set", "register.second_metric=landmarks"), 3, "the pair p1 has none"),
    ],
)
def test_mistakes_are_one_clear_message_and_change_nothing(undisturbed, words, code, said):
    before = runs.snapshot(undisturbed)
    done = command(*(word.replace("{run}", str(undisturbed)) for word in words))
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert runs.snapshot(undisturbed) == before


def test_a_run_that_is_being_worked_on_is_left_alone(copied):
    lock = RunLock(Layout(copied).lock, print)
    try:
        done = runs.call([str(runs.PROGRAM), "review", str(copied), "p1", "reject"])
    finally:
        lock.close()
    assert done.returncode == 3
    assert "is in use by" in done.stderr
    assert not Layout(copied).by_hand.exists()
