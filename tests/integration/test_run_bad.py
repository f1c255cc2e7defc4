"""What is wrong is named, each with its remedy, and costs nothing but its own row."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import runs

from comir_batch.bench.known_motion import write_pyramid
from comir_batch.core.config_file import load_config
from comir_batch.core.events import EventBus
from comir_batch.execution.serial import SerialExecutor
from comir_batch.pipeline.run import RunRequest, run

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(slides, tmp_path):
    """A folder of slides of one's own."""
    return shutil.copytree(slides, tmp_path / "slides")


def test_bad_pairs_are_rows_with_reasons_and_are_forgotten_once_repaired(folder, undisturbed, tmp_path):
    out = shutil.copytree(undisturbed, tmp_path / "run")
    write_pyramid(np.zeros((1, *runs.GRID.shape), np.uint8), runs.GRID, folder / "blank.ome.tif", ["stain"])
    whole = np.pad(runs.aligned(undisturbed)[0], ((0, 0), (0, 40), (0, 0)))
    grid = runs.Grid(*whole.shape[:0:-1], runs.MPP, runs.MPP)
    write_pyramid(whole, grid, folder / "cut.ome.tif", ["stain"])
    content = (folder / "cut.ome.tif").read_bytes()
    manifest = runs.write_manifest(
        folder / "manifest.csv",
        "blank,blank.ome.tif,moving.ome.tif,stain,negative",
        "p1,fixed.ome.tif,moving.ome.tif,stain,negative",
        "cut,fixed.ome.tif,cut.ome.tif,stain,negative",
    )

    def cut_then_start(_config):
        (folder / "cut.ome.tif").write_bytes(content[: len(content) // 2])
        return SerialExecutor()

    config = load_config(None, runs.settings(export={"ome_tiff": True}))
    summary = run(RunRequest(manifest, out, config, keep_work=True), EventBus(), cut_then_start)
    assert summary.exit_code == 1
    rows = runs.results(out)
    assert list(rows) == ["blank", "p1", "cut"]
    assert [row["verdict"] for row in rows.values()] == ["error", "accept", "error"]
    assert rows["blank"]["reasons"].startswith("register: the fixed slide has no tissue")
    assert rows["cut"]["reasons"].startswith("chunk: ")
    assert "cut.ome.tif" in rows["cut"]["reasons"]
    assert "internal error" not in rows["cut"]["reasons"]
    for pair in ("blank", "cut"):
        files = {path.name for path in (out / "pairs" / pair).iterdir()}
        assert files == {"verdict.json", "report.html", "logs"}
        page = (out / "pairs" / pair / "report.html").read_text(encoding="utf-8")
        assert "no tissue" in page or "cut.ome.tif" in page

    (folder / "cut.ome.tif").write_bytes(content)
    shutil.copy(folder / "fixed.ome.tif", folder / "blank.ome.tif")
    since = len(runs.lines(out / "records.jsonl"))
    summary = run(RunRequest(manifest, out, config), EventBus(), lambda _config: SerialExecutor())
    assert summary.exit_code == 0
    assert [row["verdict"] for row in runs.results(out).values()] == ["accept"] * 3
    assert not (out / "pairs" / "cut" / "logs" / "error.log").exists()
    assert runs.stages(runs.tasks(out, since)) == {"chunk", "register", "judge", "warp", "export", "report"}
    runs.assert_same_result(out, undisturbed)


def test_where_every_pair_is_in_error_the_exit_code_says_so(folder, tmp_path):
    write_pyramid(np.zeros((1, *runs.GRID.shape), np.uint8), runs.GRID, folder / "blank.ome.tif", ["stain"])
    manifest = runs.write_manifest(folder / "manifest.csv", "blank,blank.ome.tif,moving.ome.tif,stain,negative")
    done = runs.call(runs.command(manifest, tmp_path / "run", "--executor", "serial"))
    assert done.returncode == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert "no tissue" in done.stdout


@pytest.fixture
def bad_rows(folder, request):
    """A manifest with two good rows, and the others by pair: row, column and part of the reason."""
    rows = {
        "missing": (2, "fixed", "missing.ome.tif"),
        "text": (3, "moving", "notes.tif"),
        "nomodel": (5, "model", "no-such-model"),
        "GOOD-1": (6, "pair_id", "'GOOD-1' is already the pair_id of row 4"),
        "newline": (7, "fixed", "a control character"),
        "same": (8, "moving", "fixed and moving are the same image"),
    }
    (folder / "notes.tif").write_text("these are notes and no image\n" * 50)
    table = [
        "missing,missing.ome.tif,moving.ome.tif,stain,negative,",
        "text,fixed.ome.tif,notes.tif,stain,negative,",
        "good-1,fixed.ome.tif,moving.ome.tif,stain,negative,",
        "nomodel,fixed.ome.tif,moving.ome.tif,stain,negative,no-such-model",
        "GOOD-1,fixed.ome.tif,moving.ome.tif,stain,negative,",
        'newline,"fixed\n.ome.tif",moving.ome.tif,stain,negative,',
        "same,fixed.ome.tif,./fixed.ome.tif,stain,negative,",
        "good-2,fixed.ome.tif,moving.ome.tif,stain,negative,",
    ]
    for pair, place, reason, slide in _vendor_rows(request, folder):
        table.append(f"{pair},{slide},moving.ome.tif,stain,negative,")
        rows[pair] = (len(table) + 1, place, reason)
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join([f"{runs.HEADER},model", *table]) + "\n")
    return manifest, rows


def test_bad_rows_are_all_named_and_nothing_is_run(bad_rows, tmp_path):
    (manifest, rows), out = bad_rows, tmp_path / "run"
    refused = runs.call(runs.command(manifest, out))
    assert refused.returncode == 3
    head, *problems = refused.stderr.splitlines()
    assert head == f"{len(rows)} problems in the manifest:"
    assert len(problems) == len(rows)
    for row, column, reason in rows.values():
        (problem,) = [line for line in problems if line.startswith(f"row {row}, column {column}: ")]
        assert reason in problem
        assert len(problem.split(". ")) > 1, "a remedy follows"
    assert not out.exists()


def test_bad_rows_that_are_skipped_are_errors_told_once(bad_rows, undisturbed, tmp_path):
    (manifest, rows), out = bad_rows, tmp_path / "run"
    shutil.copytree(undisturbed, out)  # the slides of the good rows, one pair twice, are registered already
    done = runs.call(runs.command(manifest, out, "--skip-bad-rows", "--executor", "serial"))
    assert done.returncode == 1, done.stderr
    for row, column, _ in rows.values():
        assert (done.stdout + done.stderr).count(f"row {row}, column {column}: ") == 1
    results = runs.results(out)
    assert set(results) == {"good-1", "good-2", *rows}
    assert {results[pair]["verdict"] for pair in ("good-1", "good-2")} <= {"accept", "review"}
    for pair, (row, column, _) in rows.items():
        assert results[pair]["verdict"] == "error"
        assert results[pair]["reasons"].startswith(f"left out: row {row}, column {column}: ")
        assert f"<bdi>{pair}</bdi>" in (out / "report.html").read_text(encoding="utf-8")

    told = runs.call([str(runs.PROGRAM), "report", str(out), "--executor", "serial"])  # and knows it without being told
    assert told.returncode == 1, told.stderr
    assert runs.results(out) == results


def _vendor_rows(request, folder):
    """Rows that need the shared data; left out where it is absent."""
    try:
        data = request.getfixturevalue("shared_data")
    except pytest.skip.Exception:
        return
    dapi, _ = request.getfixturevalue("ndpi_pair")
    content = dapi.read_bytes()
    (folder / "truncated.ndpi").write_bytes(content[: len(content) // 2])
    yield "truncated", "fixed", "truncated.ndpi", "truncated.ndpi"
    (svs,) = (data / "slides" / "aperio_svs_tcga_cr_7395").glob("*.svs")
    yield "nosize", "fixed", "pixel size", svs
