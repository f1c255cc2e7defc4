"""`diagnose` as a user meets it: a shipped model on what it has not seen, and mistakes."""

from __future__ import annotations

import json

import cv2
import ihc_pairs
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from comir_batch.cli import diagnose_command

UNSEEN = ("--region", "0", "0", "0.625", "1")


def invoke(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    diagnose_command.add_to(app)
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return ihc_pairs.manifest(tmp_path_factory.mktemp("pairs"))


@pytest.mark.slow
def test_a_shipped_model_is_diagnosed_on_what_it_has_not_seen(manifest, tmp_path):
    result = invoke("haematoxylin-dab", manifest, "--out", tmp_path, *UNSEEN, "--crops", 16, "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))
    assert found["partners"]["retrieved"] > 0.9
    assert found["partners"]["auc"] > 0.98
    for turning in found["turning"]:
        for spreads in (turning["turned"], turning["mirrored"]):
            assert min(spread["mean"] for spread in spreads) > 0.75
    assert sum(found["success"]["levels"]) >= 3
    for spectrum in found["spaces"][0]["spectra"].values():
        assert spectrum["effective_rank"] > 3
    page = (tmp_path / "diagnosis.html").read_text(encoding="utf-8")
    assert all(finding in result.stdout for finding in found["findings"])
    assert "Measured outside 0 0 0.625 1" in page
    left = [".comir-batch-diagnosis", "diagnosis.html", "diagnosis.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonesuch",), "there is no model 'nonesuch'"),
        (("haematoxylin-dab", "--region", "0", "0", "1", "1"), "the region leaves nothing of the slides"),
        (("haematoxylin-dab", "--region", "0", "0", "2", "1"), "is not left, top, right, bottom"),
        (("haematoxylin-dab", "--device", "cuda"), "there is no CUDA device here"),
        (("haematoxylin-dab", "--against", "nonesuch"), "there is no model 'nonesuch'"),
        (("haematoxylin-dab", "--region", "0", "0", "0.92", "1"), "the part has 2"),
    ],
)
def test_mistakes_are_told_in_a_line(manifest, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr("comir_batch.representation.device._sees_cuda", lambda: False)
    result = invoke(arguments[0], manifest, *arguments[1:], "--out", tmp_path)
    assert result.exit_code == 3
    said = [line for line in result.stderr.splitlines() if line.startswith("comir-batch:")]
    assert len(said) == 1
    assert message in said[0]
    assert not (tmp_path / "diagnosis.json").exists()
    assert (tmp_path / "data").exists() == ("the part has" in message)  # the rest is told before slides are rewritten


def test_pairs_that_are_not_aligned_are_measured_with_a_warning(tmp_path):
    manifest = ihc_pairs.manifest(tmp_path)
    moving = str(tmp_path / "dab.png")
    cv2.imwrite(moving, np.roll(cv2.imread(moving, cv2.IMREAD_UNCHANGED), 14, axis=1))
    model = ihc_pairs.tiny_model(tmp_path / "tiny").folder
    result = invoke(model, manifest, "--out", tmp_path / "out", "--whole", "--crops", 16, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "the moving image lies" in result.stderr
    assert "CAREFUL: the figures say little of the model where pairs are not aligned" in result.stderr
    found = json.loads((tmp_path / "out" / "diagnosis.json").read_text(encoding="utf-8"))
    assert found["alignment"][-1].startswith("CAREFUL")
    assert found["alignment"][0] in (tmp_path / "out" / "diagnosis.html").read_text(encoding="utf-8")


def test_pairs_of_other_modalities_are_refused(tmp_path):
    stranger = ihc_pairs.manifest(tmp_path)
    stranger.write_text(stranger.read_text(encoding="utf-8").replace(",dab,", ",eosin,"), encoding="utf-8")
    result = invoke("haematoxylin-dab", stranger, "--out", tmp_path / "out", "--whole")
    assert result.exit_code == 3
    assert "knows haematoxylin and dab, not eosin" in result.stderr


def test_a_region_or_the_whole_but_not_both(manifest, tmp_path):
    result = invoke("haematoxylin-dab", manifest, "--out", tmp_path, "--whole", *UNSEEN)
    assert result.exit_code == 2
    assert "not both" in result.stderr
