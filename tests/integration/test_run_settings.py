"""Changed settings run again what they touch and nothing else; single stages; slides that pairs share."""

from __future__ import annotations

import json
import shutil

import pytest
import runs
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import StoppedError
from comir_batch.core.events import EventBus
from comir_batch.execution.serial import SerialExecutor
from comir_batch.execution.stop import StopRequest
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.registration.elastix_maps import read_chain

pytestmark = pytest.mark.slow

TIFF = {"ome_tiff": True}


@pytest.fixture
def go_on(slides, copied):
    """Run the copied run again with other settings; return its summary and the stages whose tasks were run."""

    def again(**sections):
        since = len(runs.lines(copied / "records.jsonl"))
        summary = runs.run_here(slides / "manifest.csv", copied, **sections)
        return summary, runs.stages(runs.tasks(copied, since))

    return again


def test_another_interpolation_warps_again_and_the_way_back_gives_the_first_result(go_on, copied, undisturbed):
    _, ran = go_on(export=TIFF, warp={"interpolation": "nearest"})
    assert ran == {"warp", "export", "report"}
    assert not (runs.aligned(copied)[0] == runs.aligned(undisturbed)[0]).all()
    _, ran = go_on(export=TIFF)
    assert ran == {"warp", "export", "report"}
    runs.assert_same_result(copied, undisturbed)


def test_the_tiff_can_be_had_later(go_on, copied):
    tiff = copied / "pairs" / "p1" / "aligned.ome.tif"
    before = tiff.stat().st_size
    _, ran = go_on()
    assert ran == {"export", "report"}
    assert not tiff.exists()
    _, ran = go_on(export=TIFF)
    assert ran == {"export", "report"}
    assert tiff.stat().st_size == pytest.approx(before, rel=0.01)


def test_a_rejected_pair_has_a_transform_and_a_page_and_images_only_on_demand(go_on, copied, undisturbed):
    strict = {"accept_z": 1e6, "review_z": 1e6}
    summary, ran = go_on(export=TIFF, judge=strict)
    assert summary.exit_code == 4
    assert ran == {"judge", "export", "report"}
    folder = copied / "pairs" / "p1"
    assert json.loads((folder / "verdict.json").read_text())["verdict"] == "reject"
    assert runs.results(copied)["p1"]["verdict"] == "reject"
    assert {path.name for path in folder.iterdir()} == {
        *("transform.json", "transform.h5", "elastix", "transforms", "verdict.json", "report.html", "logs")
    }
    summary, ran = go_on(export={**TIFF, "warp_rejected": True}, judge=strict)
    assert summary.exit_code == 4
    assert ran == {"warp", "export", "report"}
    runs.assert_same_result(copied, undisturbed)
    assert (folder / "aligned.ome.tif").exists()
    go_on(export=TIFF)
    assert runs.results(copied)["p1"]["verdict"] == "accept"


def test_dialects_are_written_as_asked_and_old_ones_go(go_on, copied):
    folder = copied / "pairs" / "p1" / "transforms"
    for dialects, files in ((["mha", "ngff"], {"field.mha", "scene.ome.zarr", "conventions.json"}), ([], None)):
        _, ran = go_on(export={**TIFF, "dialects": dialects})
        assert ran == {"export", "report"}
        assert files == ({path.name for path in folder.iterdir()} if folder.exists() else None)


def test_what_was_deleted_is_made_again(go_on, copied, undisturbed):
    pair = copied / "pairs" / "p1"
    for path in (copied / "pairs", pair / "aligned.ome.zarr"):
        shutil.rmtree(path)
        _, ran = go_on(export=TIFF)
        assert ran == {"warp", "export", "report"}
        runs.assert_same_result(copied, undisturbed)
    (pair / "aligned.ome.tif").unlink()
    _, ran = go_on(export=TIFF)
    assert ran == {"export", "report"}
    assert (pair / "aligned.ome.tif").exists()
    (pair / "report.html").unlink()
    _, ran = go_on(export=TIFF)
    assert ran == {"report"}


def test_an_error_under_other_settings_does_not_stay(go_on, copied, undisturbed):
    summary, _ = go_on(export=TIFF, register={"held_out": 0.001})  # of so few tiles, none
    assert summary.exit_code == 4
    row = runs.results(copied)["p1"]
    assert row["verdict"] == "error"
    assert "too few to judge by" in row["reasons"]
    summary, ran = go_on(export=TIFF)
    assert summary.exit_code == 0
    assert ran == {"export", "report"}
    assert runs.results(copied)["p1"]["verdict"] == "accept"
    runs.assert_same_result(copied, undisturbed)


def test_stopped_on_the_way_to_other_settings_no_verdict_of_the_earlier_ones_is_shown(slides, copied):
    stop = StopRequest()
    stop.request()
    config = load_config(None, runs.settings(export=TIFF, register={"seed": 4}))
    with pytest.raises(StoppedError):
        run(RunRequest(slides / "manifest.csv", copied, config), EventBus(), lambda _config: SerialExecutor(stop))
    assert (copied / "pairs" / "p1" / "verdict.json").is_file()
    row = runs.results(copied)["p1"]
    assert (row["verdict"], row["reasons"]) == ("", "")
    assert "comir_z" not in row
    assert "pairs/p1/report.html" not in (copied / "report.html").read_text(encoding="utf-8")


def test_where_elastix_cannot_finish_the_start_is_left_for_review_with_the_reason(go_on, copied):
    summary, _ = go_on(export=TIFF, register={"seed": 3, "time_limit_s": 0.001})
    assert summary.exit_code == 0
    row = runs.results(copied)["p1"]
    assert row["verdict"] == "review"
    assert "register.time_limit_s" in row["reasons"]
    assert "not at all: the start" in row["reasons"]
    pair = copied / "pairs" / "p1"
    chain = read_chain(sorted((pair / "elastix").glob("TransformParameters.*.txt")))
    assert chain.to_dict()["parts"] == json.loads((pair / "transform.json").read_text())["parts"]
    _, ran = go_on(export=TIFF, register={"seed": 3, "time_limit_s": 0.0005})
    assert ran == set()
    _, ran = go_on(export=TIFF, register={"seed": 3, "time_limit_s": 1800})
    assert {"register", "judge", "export", "report"} <= ran
    assert "register.time_limit_s" not in runs.results(copied)["p1"]["reasons"]


def test_each_stage_is_a_command_that_keeps_the_run_s_settings(copied):
    def command(stage: str, *options: str) -> set[str]:
        since = len(runs.lines(copied / "records.jsonl"))
        result = CliRunner().invoke(app, [stage, str(copied), "--executor", "serial", *options])
        assert result.exit_code == 0, result.output
        assert "p1" in result.output
        return runs.stages(runs.tasks(copied, since))

    assert command("chunk") == set()
    assert command("represent") == set()
    assert command("register", "--set", "register.seed=7") == {"register"}
    assert command("judge") == {"judge"}
    assert command("warp", "--set", "warp.interpolation=cubic") == {"warp"}
    assert command("export") == {"export"}
    assert command("report") == {"report"}
    assert command("report") == set()
    content = json.loads((copied / "run.json").read_text())
    assert content["config"]["register"]["seed"] == 7
    assert content["config"]["warp"]["interpolation"] == "cubic"
    assert len(runs.aligned(copied)) == 2


def test_a_stage_of_something_else_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["warp", str(tmp_path)])
    assert result.exit_code == 3
    assert "is not a run directory" in result.output
    assert not list(tmp_path.iterdir())


def test_a_slide_of_two_pairs_is_chunked_once_and_kept_until_both_are_finished(slides, tmp_path):
    manifest = runs.write_manifest(
        slides / "both.csv",
        "there,fixed.ome.tif,moving.ome.tif,stain,negative",
        "back,moving.ome.tif,fixed.ome.tif,negative,stain",
    )
    out = tmp_path / "run"
    summary = runs.run_here(manifest, out, keep_work=False, pairs_in_flight=1)
    assert summary.exit_code == 0
    chunked = {key.rsplit("-", 1)[0] for key in runs.tasks(out) if key.startswith("chunk")}
    assert len(chunked) == 2
    assert len(runs.tasks(out)) == len(set(runs.tasks(out)))
    assert "chunk" not in runs.stages(path.name for path in (out / "work").iterdir())
    there, back = (runs.transform(out, pair) for pair in ("there", "back"))
    points = runs.tissue_points()
    assert abs(back.map(there.map(points)) - points).max(axis=1).mean() < 1.0
