"""The registration benchmark end to end: a table from fields, and a killed one goes on where it was."""

import json

import ihc_pairs
import pytest
from typer.testing import CliRunner

from comir_batch.bench.registration import BenchRequest, compare
from comir_batch.cli.app import app
from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import ConfigError, ModelError
from comir_batch.execution.stop import StopRequest
from comir_batch.representation.store import find_model

LIGHT = RegisterConfig(threads=1, angles=24, candidates=1, search_side=64, iterations=20, samples=512)
LEARNT = (0.0, 0.0, 0.625, 1.0)


def request(folder, **changes):
    chosen = {"only": ("level-1", "bent"), "count": 1, "side": 128, "learnt": LEARNT, "config": LIGHT} | changes
    model = chosen.pop("model", None) or find_model("haematoxylin-dab")
    return BenchRequest(model, folder / "pairs.csv", folder / "out", **chosen)


def run(folder, **changes):
    return compare(request(folder, **changes), StopRequest(), lambda _: None)


@pytest.mark.slow
def test_a_table_from_fields_and_a_killed_one_goes_on(tmp_path):
    ihc_pairs.manifest(tmp_path)
    columns, rows = run(tmp_path)
    assert len(columns) == 7
    assert [row[0].split(" (")[0] for row in rows[::3]] == [
        "level 1: turn 0-5°, shift 0-3 px of 128",
        "level 1, and bent by up to 3% of the side",
    ]
    assert {len(row) for row in rows} == {7}
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    first, bent = table["conditions"]
    assert set(first["methods"]) == {"elastix", "sift", "raw", "comir", "both"}
    assert set(bent["methods"]) == {"raw", "comir", "both"}
    assert first["methods"]["sift"]["found"] == first["methods"]["comir"]["found"] == 1.0
    assert first["methods"]["comir"]["error_px"] < 1.0
    assert first["unbent_px"] == 0 < bent["unbent_px"] < 0.03 * 128
    assert f"alone leave {bent['unbent_px']:.2f} px" in (tmp_path / "out" / "table.md").read_text()

    fields = tmp_path / "out" / "fields.jsonl"
    whole, second = fields.read_text().splitlines(keepends=True)
    fields.write_text(whole + second[: len(second) // 2])  # killed while it wrote the second
    run(tmp_path, only=("level-1",))
    assert fields.read_text() == whole  # what was whole is not measured again, what was cut off is gone

    with pytest.raises(ConfigError, match="another model, other pairs or settings"):
        run(tmp_path, seed=5)


def test_what_cannot_be_measured_is_said(tmp_path):
    ihc_pairs.manifest(tmp_path)
    with pytest.raises(ConfigError, match="no condition sideways; there are level-1, "):
        run(tmp_path, only=("sideways",))
    with pytest.raises(ConfigError, match="take 96 or more"):
        run(tmp_path, side=64)
    with pytest.raises(ConfigError, match="learnt from all"):
        run(tmp_path, learnt=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="dapi and tritc, the pairs are of haematoxylin and dab"):
        run(tmp_path, model=find_model("dapi-tritc"))


def test_the_command_wants_to_know_what_the_model_has_seen(tmp_path):
    result = CliRunner().invoke(app, ["bench", "registration", "haematoxylin-dab", "pairs.csv", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "--region" in result.stderr
