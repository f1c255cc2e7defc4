"""The registration benchmark end to end: a table from fields, and a killed one goes on where it was."""

import csv
import json
from dataclasses import replace

import ihc_pairs
import pytest
from typer.testing import CliRunner

from comir_batch.bench.registration import BenchRequest, compare
from comir_batch.cli.app import app
from comir_batch.core.config import JudgeConfig, RegisterConfig
from comir_batch.core.errors import ConfigError, ManifestError, ModelError
from comir_batch.execution.stop import StopRequest
from comir_batch.representation.store import find_model

LIGHT = RegisterConfig(threads=1, angles=24, search_side=64, iterations=20, samples=512)
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
    columns, rows = run(tmp_path).found
    assert len(columns) == 7
    assert [row[0].split(" (")[0] for row in rows if row[0]] == [
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

    assert first["methods"]["comir"]["folded"] == 0
    assert "Errors, bent" in (tmp_path / "out" / "report.html").read_text()

    fields = tmp_path / "out" / "fields.jsonl"
    whole, second = fields.read_text().splitlines(keepends=True)
    fields.write_text(whole + second[: len(second) // 2])  # killed while it wrote the second
    run(tmp_path, only=("level-1",))
    assert fields.read_text() == whole  # what was whole is not measured again, what was cut off is gone

    with pytest.raises(ConfigError, match="another model, other pairs, side or seed"):
        run(tmp_path, seed=5)


@pytest.mark.slow
def test_other_settings_measure_our_methods_alone_again_and_lose_nothing(tmp_path):
    ihc_pairs.manifest(tmp_path)
    asked = {"only": ("level-1",), "methods": ("elastix", "raw"), "verdicts": False}
    first = run(tmp_path, **asked)
    assert first.verdicts[1] == []
    fields = tmp_path / "out" / "fields.jsonl"
    (line,) = fields.read_text().splitlines()
    assert "evidence" not in json.loads(line)
    run(tmp_path, **asked, config=LIGHT.model_copy(update={"seed": 2}))
    rows = [json.loads(line) for line in fields.read_text().splitlines()]
    assert [sorted(row["methods"]) for row in rows] == [["elastix", "raw"], ["raw"]]
    assert rows[0]["methods"]["raw"][0] != rows[1]["methods"]["raw"][0]
    assert json.loads((tmp_path / "out" / "table.json").read_text())["conditions"][0]["methods"]["elastix"]["n"] == 1
    assert run(tmp_path, **asked).found == first.found
    assert len(fields.read_text().splitlines()) == 2


@pytest.mark.slow
def test_fields_that_do_not_belong_together_are_judged_and_never_accepted(tmp_path):
    ihc_pairs.manifest(tmp_path)
    wrong = ("neighbour", "other-pair", "blank", "background")
    columns, rows = run(
        tmp_path, only=("level-1", *wrong), learnt=None, whole=True, methods=("both", "elastix")
    ).verdicts
    told = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert set(told) == {
        "level 1: turn 0-5°, shift 0-3 px of 128",
        "wrong: the place beside it, any angle",
        "blank: flat, with the slide's noise",
        "blank: background alone",
        "all wrong and blank ones",
    }
    assert all(row["method"] == "comir-batch with the model" for row in told.values())
    assert told["all wrong and blank ones"]["false accepts (at most)"] == "0 (63.2%)"
    assert told["level 1: turn 0-5°, shift 0-3 px of 128"]["found"] == "1"
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["conditions"][2]["unplaced"] == 1  # one pair alone has no other
    assert "wrong: a place of another pair, any angle: 1" in (tmp_path / "out" / "table.md").read_text()
    lines = list(csv.DictReader((tmp_path / "out" / "verdicts.csv").read_text().splitlines()))
    assert [line["condition"] for line in lines] == ["level-1", "neighbour", "blank", "background"]
    assert float(lines[0]["comir_z"]) > 4 > float(lines[1]["comir_z"])

    before = (tmp_path / "out" / "fields.jsonl").read_bytes()
    strict = JudgeConfig(review_z=1000.0, accept_z=1000.0)
    columns, rows = run(tmp_path, only=("level-1",), learnt=None, whole=True, methods=("both",), judge=strict).verdicts
    assert dict(zip(columns, rows[0], strict=True))["false rejects (at most)"] == "1 (100.0%)"
    assert (tmp_path / "out" / "fields.jsonl").read_bytes() == before  # other thresholds measure nothing again


@pytest.mark.slow
def test_the_other_methods_are_measured_when_they_are_asked_for(tmp_path):
    ihc_pairs.manifest(tmp_path)
    others = ("none", "elastix-one", "elastix-comir", "sift-raw", "mi", "mind")
    run(tmp_path, only=("level-1", "mirrored", "bent-5"), methods=others)
    level, mirrored, bent = json.loads((tmp_path / "out" / "table.json").read_text())["conditions"]
    assert tuple(level["methods"]) == others
    assert tuple(mirrored["methods"]) == ("none", "mi", "mind")
    assert tuple(bent["methods"]) == ("none",)
    assert level["methods"]["elastix-comir"]["found"] == 1.0
    assert mirrored["methods"]["none"]["found"] == 0.0


@pytest.mark.slow
def test_methods_that_are_measured_one_by_one_add_up(tmp_path):
    ihc_pairs.manifest(tmp_path)
    together = request(tmp_path, only=("level-1",), methods=("comir", "raw", "both"))
    compare(together, StopRequest(), lambda _: None)
    apart = replace(together, out=tmp_path / "apart")
    for method in ("raw", "comir", "comir", "both"):
        compare(replace(apart, methods=(method,)), StopRequest(), lambda _: None)
    assert len((apart.out / "fields.jsonl").read_text().splitlines()) == 3  # what is there is not measured again
    tables = [json.loads((folder / "table.json").read_text()) for folder in (together.out, apart.out)]
    first, second = (
        {name: cell | {"seconds": 0} for name, cell in table["conditions"][0]["methods"].items()} for table in tables
    )
    assert first == second
    assert set(first) == {"raw", "comir", "both"}
    assert first["comir"]["found"] == 1.0


def test_what_cannot_be_measured_is_said(tmp_path):
    ihc_pairs.manifest(tmp_path)
    with pytest.raises(ConfigError, match="no condition sideways; there are level-1, "):
        run(tmp_path, only=("sideways",))
    with pytest.raises(ConfigError, match="take 96 or more"):
        run(tmp_path, side=64)
    with pytest.raises(ConfigError, match="no method guessing; there are elastix, "):
        run(tmp_path, methods=("guessing",))
    with pytest.raises(ConfigError, match="leaves nothing of the slides"):
        run(tmp_path, learnt=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="dapi and tritc, the pairs are of haematoxylin and dab"):
        run(tmp_path, model=find_model("dapi-tritc"))
    path = tmp_path / "pairs.csv"
    heads, row = path.read_text().splitlines()
    path.write_text(f"{heads},model\n{row},dapi-tritc\n")
    with pytest.raises(ManifestError, match="no row chooses the model to measure"):
        run(tmp_path)


def test_what_the_model_learnt_from_is_left_out_without_being_asked(tmp_path):
    data = ihc_pairs.pair(tmp_path)
    slides = {"h": data.fixed.digest, "d": data.moving.digest}
    ihc_pairs.tiny_model(tmp_path / "model", data_sha256=slides, training={"region": "0 0 0.625 1"})
    words = [str(tmp_path / "model"), str(tmp_path / "pairs.csv"), "--side", "128", "--count", "1", "--only", "level-1"]
    words += ["--methods", "sift"]

    def table(*more):
        out = tmp_path / "-".join(("out", *more))
        result = CliRunner().invoke(app, ["bench", "registration", *words, "--out", str(out), *more])
        assert result.exit_code == 0, result.output
        return json.loads((out / "table.json").read_text()), (out / "table.md").read_text()

    record, page = table()
    assert record["setup"]["parts"][0][3:] == ["160.0", "0.0", "inf", "inf"]
    assert "outside 0 0 0.625 1" in record["measured"]
    assert record["measured"] in page
    assert list(record["conditions"][0]["methods"]) == ["sift"]
    record, page = table("--whole")
    assert record["setup"]["parts"][0][3:] == ["0.0", "0.0", "inf", "inf"]
    assert "as asked. Careful: tiny-0 learnt from 0 0 0.625 1 of 1 of these 1 pairs" in page
    _, page = table("--region", "0", "0", "0.5", "1")
    assert "Measured outside 0 0 0.5 1" in page
    assert "Careful" in page


def test_a_region_of_the_whole_makes_no_sense(tmp_path):
    words = ["haematoxylin-dab", "pairs.csv", "--out", str(tmp_path), "--whole", "--region", "0", "0", "0.5", "1"]
    result = CliRunner().invoke(app, ["bench", "registration", *words])
    assert result.exit_code == 2
    assert "not both" in result.stderr
