"""Thresholds are chosen on some slides by what they let through, and told of others."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from comir_batch.bench.calibration import Case, Counts, calibrated, read_fields, swept
from comir_batch.bench.field_worker import digest_of
from comir_batch.bench.verdicts import recorded
from comir_batch.cli.app import app
from comir_batch.core.config import JudgeConfig
from comir_batch.core.errors import ConfigError
from comir_batch.quality.evidence import Evidence
from comir_batch.quality.plausibility import Folding, Shape
from comir_batch.quality.similarity import Similarity

CONFIG = JudgeConfig()
EVIDENCE = Evidence(
    registered_from="raw",
    shape=Shape(0.99, 1.01, 0.0, mirrored=False, rotation_deg=4.0),
    folding=Folding(0.0, 0.9, 1.1, 0.95, 1.05),
    overlap=0.9,
    raw=Similarity("mi", 12, 0.1, 0.2, 1.0, 9.0, 0.9),
)


def of(z):
    return replace(EVIDENCE, raw=replace(EVIDENCE.raw, z=z))


def fields(seed, right=400, wrong=400):
    """Right ones lie about 20, wrong ones below 11.5."""
    generator = np.random.default_rng(seed)
    return [
        *(Case(of(float(z)), found=True) for z in generator.normal(20, 4, right)),
        *(Case(of(float(z)), found=False) for z in generator.uniform(0, 11.5, wrong - 1)),
        Case(None, found=False),
    ]


def test_verdicts_are_counted_by_what_is_true():
    cases = [Case(of(12.0), found=True), Case(of(6.0), found=True), Case(of(1.0), found=True)]
    cases += [Case(of(9.0), found=False), Case(of(2.0), found=False), Case(None, found=False)]
    assert Counts.of(cases, CONFIG) == Counts(3, 1, 1, 3, 1, 2)


def test_the_least_significance_that_keeps_wrong_ones_out_is_chosen():
    cases = fields(1)
    config = calibrated(cases, CONFIG)
    assert 10.5 <= config.accept_z <= 11.5  # of 400 none may pass: one would be 1.2 % at the upper end
    assert Counts.of(cases, config).false_accepts_most <= 0.01
    less = config.model_copy(update={"accept_z": config.accept_z - 0.5})
    assert Counts.of(cases, less).false_accepts_most > 0.01
    assert config.review_z == pytest.approx(config.accept_z / 2, abs=0.25)
    assert Counts.of(cases, config).false_rejects_most <= 0.05


def test_a_sweep_lets_fewer_through_the_more_is_asked_for():
    counts = swept(fields(2), CONFIG, "accept_z")
    accepted = [each.right_accepted + each.wrong_accepted for each in counts]
    assert accepted == sorted(accepted, reverse=True)
    assert accepted[0] > 600
    assert accepted[-1] < 10


def test_too_few_fields_show_nothing():
    with pytest.raises(ConfigError, match=r"there are 100 wrong fields; to show that at most 1% .* takes 299 or more"):
        calibrated(fields(1, wrong=100), CONFIG)
    with pytest.raises(ConfigError, match=r"there are 30 right fields; .* takes 59 or more"):
        calibrated(fields(1, right=30), CONFIG)


def test_wrong_ones_that_look_right_are_not_hidden():
    alike = [*fields(1), *(Case(of(100.0), found=False) for _ in range(20))]
    with pytest.raises(ConfigError, match=r"no judge\.accept_z from 2 to 40 keeps wrong verdicts as few as asked"):
        calibrated(alike, CONFIG)


OURS = {"revisions": {"both": 1}, "register": {}}


@pytest.fixture
def measured(tmp_path):
    """Two outputs of the benchmark, of two slides."""

    def write(name, seed):
        folder = tmp_path / name
        folder.mkdir()
        parts = [[name, f"fixed of {name}", f"moving of {name}", "0"]]
        (folder / "setup.json").write_text(json.dumps({"side": 256, "parts": parts, "ours": OURS}))
        rows = [
            {
                "condition": "level-1",
                "number": number,
                "methods": {"both": [1.0 if case.found else 90.0, 2.0]},
                "evidence": {"both": recorded(case.evidence)},
                "ours": {"both": digest_of({"revision": 1, "register": {}})[:16]},
            }
            for number, case in enumerate(fields(seed))
        ]
        (folder / "fields.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(folder)

    return write


def call(*words):
    return CliRunner().invoke(app, ["bench", "calibrate", *map(str, words)])


def test_what_was_chosen_on_one_slide_is_told_of_another(measured, tmp_path):
    done = call(measured("a", 1), "--told", measured("b", 2), "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert f"--set judge.accept_z={content['chosen']['accept_z']:g}" in done.output
    told = {(row["thresholds"], row["fields_of"]): row for row in content["counts"]}
    assert told["chosen", "calibration"]["false_accepts_most"] <= 0.01
    assert told["present", "calibration"]["wrong_accepted"] > 50  # 8 is asked for, where 11 would do
    assert told["chosen", "other slides"]["wrong_accepted"] <= 8
    assert told["chosen", "other slides"]["right"] == 400
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "judge.review_z" in page


def test_figures_are_not_told_of_the_slides_that_were_calibrated_on(measured, tmp_path):
    folder = measured("a", 1)
    done = call(folder, "--told", folder, "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "both sets of fields are of the same slide" in done.output


def test_a_field_counts_once_however_often_its_folder_is_named_or_copied(measured, tmp_path):
    folder = Path(measured("a", 1))
    shutil.copytree(folder, tmp_path / "copy")
    once = read_fields([folder], "both")
    assert len(once.cases) == 800
    assert read_fields([folder, folder, tmp_path / "copy"], "both") == once
    assert len(read_fields([folder, Path(measured("b", 2))], "both").cases) == 1600


def test_what_holds_no_fields_is_told(measured, tmp_path):
    done = call(tmp_path, "--told", measured("b", 2), "--out", tmp_path / "out")
    assert done.exit_code == 3
    assert "holds no measured fields; give the --out of comir-batch bench registration" in done.output
    with pytest.raises(ConfigError, match="holds no evidence of the method comir"):
        read_fields([tmp_path / "b"], "comir")
