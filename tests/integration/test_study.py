"""`study` as a user meets it: every variant trained and measured, killed and resumed; what it changes."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import time

import pytest
from runs import PROGRAM
from skimage.data import immunohistochemistry
from test_train import QUICK, write_pairs

from comir_batch.execution.stop import StopRequest
from comir_batch.representation import device
from comir_batch.representation.store import find_model, is_model
from comir_batch.training.config import checked
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.study import STUDIES, StudyRequest, _changed, study

VARIANTS = ("none", "c4", "d4")


def words(pairs, out, *more, **settings):
    given = [word for key, value in (QUICK | {"steps": 2} | settings).items() for word in ("--set", f"{key}={value}")]
    return [str(PROGRAM), "study", "symmetry", str(pairs), "--out", str(out), "--fields", "4", *given, *more]


def call(*arguments, **settings):
    return subprocess.run(words(*arguments, **settings), capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs", haematoxylin_dab_channels(immunohistochemistry()))


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_and_compares_its_variants(pairs, tmp_path):
    out = tmp_path / "study"
    first = out / "models" / "none-1"
    process = subprocess.Popen(words(pairs, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not is_model(first):
        assert process.poll() is None, "ended before its first model"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stamp = (first / "weights.safetensors").stat().st_mtime_ns
    other = call(pairs, out, learning_rate=1e-3)
    assert other.returncode == 3
    assert "holds a study of other pairs or settings. Choose another --out" in other.stderr
    done = call(pairs, out)
    assert done.returncode == 0, done.stderr
    assert (first / "weights.safetensors").stat().st_mtime_ns == stamp
    _require_whole(out, done.stdout)


def _require_whole(out, printed):
    trials = json.loads((out / "study.json").read_text())["trials"]
    assert [trial["variant"] for trial in trials] == list(VARIANTS)
    assert all(trial["fields"] == [1, 1, 1, 1] and len(trial["found"]) == 4 for trial in trials)
    cards = [find_model(out / "models" / f"{variant}-1").card for variant in VARIANTS]
    assert [card.training["symmetry"] for card in cards] == list(VARIANTS)
    assert len({card.weights_sha256 for card in cards}) == 3
    assert [trial["diagnosis"]["weights_sha256"] for trial in trials] == [card.weights_sha256 for card in cards]
    table = (out / "table.md").read_text().splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == list(VARIANTS)
    page = (out / "study.html").read_text()
    assert "One seed, 2 steps" in page
    assert "that chose the step to keep" in page
    (lowest,) = re.findall(r"turned back, is (\S+) for none", page)
    assert float(lowest) == pytest.approx(float(table[2].split("|")[7]), abs=0.006)
    assert "unseen" not in page
    assert all(variant in printed for variant in VARIANTS)
    assert not (out / "data").exists()
    assert len(list((out / "charts").glob("*.svg"))) >= 2


def test_models_are_measured_where_and_as_they_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "_sees_cuda", lambda: True)  # which is not to be used
    monkeypatch.setitem(STUDIES, "symmetry", {name: {"symmetry": name} for name in ("none", "c4")})
    stains = haematoxylin_dab_channels(immunohistochemistry())
    pairs = write_pairs(tmp_path / "pairs", stains[:, :, :380], 1, side=380)
    config = checked(QUICK | {"steps": 1, "crop": 104, "validation": 0.2, "device": "cpu"})
    request = StudyRequest("symmetry", pairs, tmp_path / "study", config, fields=6)
    trials = study(request, StopRequest(), lambda _: None, lambda _: None)
    assert [trial.fields for trial in trials] == [(2, 2, 1, 1)] * 2
    assert {trial.side for trial in trials} == {52}  # for want of room
    assert "transforms of crops of 52 pixels" in (tmp_path / "study" / "study.html").read_text()
    rows = (tmp_path / "study" / "table.md").read_text().splitlines()[2:]
    assert all(0 <= float(share) <= 100 for row in rows for share in row.split("|")[5].split("/"))


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_of_a_study_is_another_training(name):
    variants = STUDIES[name]
    configs = {variant: checked(changes) for variant, changes in variants.items()}
    assert all(first != second for first, second in itertools.combinations(configs.values(), 2))
    kept = [config.model_dump(exclude={"supervision", "symmetry"}) for config in configs.values()]
    assert all(settings == kept[0] for settings in kept)


def test_the_study_of_supervision_has_the_nine_ways_and_none():
    ways = [checked(changes).supervision for changes in STUDIES["supervision"].values()]
    assert ways[0].approach == "none"
    assert {(way.approach, way.critic) for way in ways[1:]} == set(
        itertools.product(("alternating", "summed", "pretraining"), ("mse", "cosine", "l1"))
    )
    assert len(ways) == 10


@pytest.mark.parametrize("name", STUDIES)
def test_what_all_variants_have_in_common_does_not_change_them(name):
    base = checked({"supervision": {"approach": "summed", "critic": "l1"}, "symmetry": "c4"})
    for changes in STUDIES[name].values():
        (setting,) = changes
        assert getattr(_changed(base, changes), setting) == getattr(checked(changes), setting)
