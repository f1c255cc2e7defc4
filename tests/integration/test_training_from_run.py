"""Learning from a run: its accepted pairs as aligned ones."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
import runs
from test_train import QUICK

from comir_batch.core.config import ExecutionConfig
from comir_batch.core.config_file import load_config
from comir_batch.core.errors import RunDirectoryError, StoppedError
from comir_batch.core.events import EventBus, Kind
from comir_batch.core.manifest import read_manifest
from comir_batch.core.verdict import Verdict
from comir_batch.execution.serial import SerialExecutor
from comir_batch.io.mask_reader import read_mask
from comir_batch.io.transform_files import read_json, write_json
from comir_batch.pipeline.files import read_arrays, write_arrays
from comir_batch.pipeline.review import review
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.representation.store import find_model
from comir_batch.training.alignment import measure
from comir_batch.training.from_run import pairs_of_run
from comir_batch.training.pairs import prepare
from comir_batch.training.split import WHOLE

pytestmark = pytest.mark.slow


def verdict(run, word, pair="p1"):
    """Write another verdict over a pair's."""
    path = run / "pairs" / pair / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "verdict": word}))


def mask_of(manifest):
    return read_mask(read_manifest(manifest).rows[0].fixed_mask)


def test_an_accepted_pair_is_prepared_aligned_and_its_misaligned_slides_are_not(copied, slides, tmp_path):
    verdict(copied, "accept")
    manifest, notes = pairs_of_run(copied, tmp_path)
    assert len(notes) == 1
    assert "of the fixed slide's tissue is learnt from" in notes[0]
    (row,) = read_manifest(manifest).rows
    assert (row.pair_id, row.fixed_modality, row.moving_modality) == ("p1", "stain", "negative")
    assert row.fixed_mask == row.moving_mask
    serial = ExecutionConfig(executor="serial")
    (pair,) = prepare(manifest, tmp_path / "data", 0.0, serial, lambda _: None).pairs
    assert pair.fixed.grid == pair.moving.grid
    found = measure(pair, WHOLE)
    assert found.known
    assert found.off_px < 3
    (pair,) = prepare(slides / "manifest.csv", tmp_path / "raw", 0.0, serial, lambda _: None).pairs
    found = measure(pair, WHOLE)
    assert not found.known or found.off_px > 10


def test_coarser_aligned_images_are_learnt_from_at_their_pixel_size(slides, tmp_path):
    coarse = 2 * runs.MPP
    runs.run_here(slides / "manifest.csv", tmp_path / "run", warp={"mpp": coarse})
    verdict(tmp_path / "run", "accept")
    manifest, _ = pairs_of_run(tmp_path / "run", tmp_path)
    (pair,) = prepare(manifest, tmp_path / "data", 0.0, ExecutionConfig(executor="serial"), lambda _: None).pairs
    assert [slide.grid.mpp_x for slide in (pair.fixed, pair.moving)] == pytest.approx([coarse, coarse], rel=0.01)
    found = measure(pair, WHOLE)
    assert found.known
    assert found.off_px < 2


def test_what_the_run_doubts_is_masked(copied, tmp_path):
    verdict(copied, "accept")
    before = mask_of(pairs_of_run(copied, tmp_path / "before")[0])
    (tiles,) = (copied / "work").glob("judge-*/tiles.npz")
    arrays = read_arrays(tiles)
    row, column = np.argwhere(np.isfinite(arrays["after"]))[0]
    arrays["after"][row, column] = arrays["before"][row, column] - 1.0
    write_arrays(tiles, **arrays)
    manifest, notes = pairs_of_run(copied, tmp_path / "after")
    after = mask_of(manifest)
    assert "tiles that registration made no better" in notes[0]
    y, x = 48 * row + 24, 48 * column + 24
    assert before[y, x]
    assert not after[y - 40 : y + 40, x - 40 : x + 40].any()
    assert after.sum() > 0.5 * before.sum()
    assert not (after & ~before).any()


def test_a_run_without_its_work_files_is_taken_with_a_word(copied, tmp_path):
    verdict(copied, "accept")
    shutil.rmtree(copied / "work")
    manifest, notes = pairs_of_run(copied, tmp_path)
    assert "does not hold its held-out tiles any more" in notes[0]
    assert mask_of(manifest).any()


def test_tissue_that_lands_beside_the_moving_slide_is_masked(copied, tmp_path):
    verdict(copied, "accept")
    before = mask_of(pairs_of_run(copied, tmp_path / "before")[0])
    path = copied / "pairs" / "p1" / "transform.json"
    found = read_json(path)
    shifted = type(found)((*found.parts, _shift(found, 60.0)))
    write_json(shifted, path)
    manifest, notes = pairs_of_run(copied, tmp_path / "after")
    assert "tissue of one slide only" in notes[0]
    assert mask_of(manifest).sum() < 0.8 * before.sum()


def _shift(found, um):
    affine = next(part for part in found.parts if hasattr(part, "matrix"))
    return type(affine)(np.eye(2), np.array([um, 0.0]))


def test_the_command_trains_on_a_run_and_leaves_it_as_it_was(copied, tmp_path):
    verdict(copied, "accept")
    before = runs.snapshot(copied)
    refused = call("train", "--from-run", str(copied), "--out", str(copied))
    assert refused.returncode == 3
    assert "holds other files, not those of a training" in refused.stderr
    given = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]
    done = call("train", "--from-run", str(copied), "--out", str(tmp_path / "model"), *given)
    assert done.returncode == 0, done.stderr
    assert "pair p1: " in done.stderr
    assert "of the fixed slide's tissue is learnt from" in done.stderr
    card = find_model(tmp_path / "model").card
    assert [modality.modality for modality in card.modalities] == ["stain", "negative"]
    assert "of the fixed slide&#39;s tissue is learnt from" in (tmp_path / "model" / "report.html").read_text()
    assert runs.snapshot(copied) == before


def call(*words):
    return subprocess.run([str(runs.PROGRAM), *words], capture_output=True, text=True, check=False, timeout=300)


def test_runs_that_cannot_be_learnt_from_say_why(copied, tmp_path):
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        pairs_of_run(tmp_path, tmp_path)
    verdict(copied, "review")
    with pytest.raises(RunDirectoryError, match="none of its 1 pairs is accepted"):
        pairs_of_run(copied, tmp_path)
    assert pairs_of_run(copied, tmp_path, ["p1"])[0].is_file()
    with pytest.raises(RunDirectoryError, match="has no pair p7"):
        pairs_of_run(copied, tmp_path, ["p7"])
    verdict(copied, "reject")
    with pytest.raises(RunDirectoryError, match=r"p1 \(reject\) cannot be learnt from; what is named must be accepted"):
        pairs_of_run(copied, tmp_path, ["p1"])
    verdict(copied, "review")
    (copied / "pairs" / "p1" / "aligned.ome.zarr" / "zarr.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"aligned.ome.zarr of p1 is missing\. Make it again with comir-batch"):
        pairs_of_run(copied, tmp_path, ["p1"])


def stop_when(kind, stage):
    def stop(event):
        if (event.kind, event.stage) == (kind, stage):
            raise StoppedError("stopped")

    return EventBus(stop)


def test_what_a_stopped_run_has_not_come_to_is_left_out(slides, copied, tmp_path):
    """What is published of it is an earlier run's."""
    verdict(copied, "accept")
    two = slides / "one-more.csv"
    runs.write_manifest(two, *(f"{name},fixed.ome.tif,moving.ome.tif,stain,negative" for name in ("p1", "p2")))
    config = load_config(None, runs.settings(export={"ome_tiff": True}))
    with pytest.raises(StoppedError):
        run(RunRequest(two, copied, config), stop_when(Kind.TASK_DONE, "warp"), lambda _config: SerialExecutor())
    manifest, notes = pairs_of_run(copied, tmp_path)
    assert [row.pair_id for row in read_manifest(manifest).rows] == ["p1"]
    assert any("pair p2: left out; the run was stopped before it had a result of its present" in note for note in notes)
    config = load_config(None, runs.settings(export={"ome_tiff": True}, judge={"accept_z": 1e6}))
    with pytest.raises(StoppedError):
        run(RunRequest(two, copied, config), stop_when(Kind.JOB_DONE, "judge"), lambda _config: SerialExecutor())
    with pytest.raises(RunDirectoryError, match="none of its 2 pairs is accepted, and 2 are without a result of its"):
        pairs_of_run(copied, tmp_path)
    with pytest.raises(RunDirectoryError, match=r"p1 \(without a result of its present settings\) cannot"):
        pairs_of_run(copied, tmp_path, ["p1"])


def test_what_a_person_accepts_after_the_run_is_learnt_from(copied, tmp_path):
    verdict(copied, "review")
    review(copied, "p1", Verdict.ACCEPT, "", print)
    assert mask_of(pairs_of_run(copied, tmp_path)[0]).any()
