"""The command `train`, on the stains of a real picture."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
import runs
from runs import PROGRAM
from skimage.data import immunohistochemistry

from comir_batch.core.geometry import Region
from comir_batch.execution.stop import StopRequest
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.representation.store import find_model
from comir_batch.training.config import checked
from comir_batch.training.ihc import haematoxylin_dab_channels
from comir_batch.training.train import TrainRequest, train

if TYPE_CHECKING:
    from pathlib import Path

HEADER = ("pair_id", "fixed", "moving", "fixed_modality", "moving_modality", "fixed_mpp", "moving_mpp")
# Minutes become seconds: few steps of few small crops.
QUICK = {
    "steps": 6,
    "batch": 2,
    "crop": 32,
    "contrast": 16,
    "validate_every": 3,
    "validation_fields": 4,
    "measured_crops": 16,
    "threads": 1,
}


def write_pairs(folder: Path, stains: np.ndarray, tiles: int = 6, side: int = 160) -> Path:
    """Write square tiles of both stains as pairs, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(tiles):
        y, x = divmod(number, 3)
        tile = stains[:, side * y : side * (y + 1), side * x : side * (x + 1)]
        names = [f"{name}{number}.png" for name in ("h", "d")]
        for name, image in zip(names, tile, strict=True):
            cv2.imwrite(str(folder / name), image)
        rows.append((f"t{number}", *names, "haematoxylin", "dab", 0.5, 0.5))
    with (folder / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def stains():
    return haematoxylin_dab_channels(immunohistochemistry())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, stains):
    return write_pairs(tmp_path_factory.mktemp("pairs"), stains)


def words(pairs, out, *more, **settings):
    given = [word for key, value in (QUICK | settings).items() for word in ("--set", f"{key}={value}")]
    return [str(PROGRAM), "train", str(pairs), "--out", str(out), *given, *more]


def call(*arguments, **settings):
    return subprocess.run(words(*arguments, **settings), capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "model"
    done = call(pairs, out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_a_training_leaves_a_model_a_card_a_record_and_a_report(trained):
    out, done = trained
    assert sorted(path.name for path in out.iterdir()) == [
        ".comir-batch-training",
        "card.json",
        "report.html",
        "training.json",
        "weights.safetensors",
    ]
    card = find_model(out).card
    assert (card.name, card.slides, card.mpp) == ("haematoxylin-dab", 6, 0.5)
    assert card.training["steps_done"] == 6
    assert card.training["device_used"] in {"cpu", "cuda"}
    assert len(card.data_sha256) == 12
    assert {"correlation", "retrieved", "turned_dab"} <= set(card.metrics)
    assert all(0 <= card.metrics[f"found_{level}"] <= 1 for level in (1, 2, 3, 4))
    assert "parts, which decided when to stop, of t" in card.metrics["measured_on"]
    levels = ", ".join(f"{card.metrics[f'found_{level}']:.0%}" for level in (1, 2, 3, 4))
    page = (out / "report.html").read_text()
    assert f"of {card.metrics['found_of']} crops" in page
    assert f"({levels} at turns up to" in page  # the card and the report tell of one measurement
    assert "unseen tissue" not in page
    record = json.loads((out / "training.json").read_text())
    assert len(record["losses"]) == 6
    assert [v["step"] for v in record["validations"]] == [3, 6]
    assert "step 6 of 6" in done.stderr
    assert "<svg" in page


def test_a_model_is_measured_on_the_device_that_is_asked_for(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("comir_batch.representation.device._sees_cuda", lambda: True)  # which is not to be used
    config = checked(QUICK | {"steps": 1, "device": "cpu"})
    card = train(TrainRequest(pairs, tmp_path / "model", config), StopRequest(), lambda _: None, lambda _: None)
    assert card.training["device_used"] == "cpu"
    assert card.metrics["found_of"] == 4


def test_what_is_there_is_not_overwritten(trained, pairs):
    done = call(pairs, trained[0])
    assert done.returncode == 3
    assert "holds a model already. Choose another --out" in done.stderr


def test_the_trained_model_represents_slides_in_a_run(trained, pairs, tmp_path):
    rows = pairs.read_text().splitlines()[:2]
    one = pairs.with_name("one.csv")
    one.write_text("\n".join(rows) + "\n")
    summary = runs.run_here(one, tmp_path / "run", target="represent", model=str(trained[0]))
    assert summary.exit_code == 0, summary
    comirs = [ZarrArray.open(path / "pixels.zarr") for path in sorted((tmp_path / "run" / "work").glob("represent-*"))]
    images = [comir.read(Region(0, 0, 160, 160)).astype(np.float64) for comir in comirs]
    assert [image.shape for image in images] == [(1, 160, 160)] * 2
    assert all(np.isfinite(image).all() and image.std() > 0 for image in images)


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_to_the_same_weights(trained, pairs, tmp_path):
    out = tmp_path / "model"
    settings = {"checkpoint_minutes": 0, "validate_every": 3}
    process = subprocess.Popen(words(pairs, out, **settings), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(out / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "card.json").exists()
    refused = call(pairs, out, **settings)
    assert (refused.returncode, "--resume" in refused.stderr) == (3, True)
    other = call(pairs, out, "--resume", **(settings | {"steps": 7}))
    assert other.returncode == 3
    assert "steps was 6, is 7" in other.stderr
    masked = call(with_mask(pairs), out, "--resume", **settings)
    assert masked.returncode == 3
    assert "masks are not those of the training that was stopped (t0 fixed)" in masked.stderr
    done = call(pairs, out, "--resume", **settings)
    assert done.returncode == 0, done.stderr
    assert find_model(out).card.weights_sha256 == find_model(trained[0]).card.weights_sha256


@pytest.mark.slow
def test_a_training_that_is_interrupted_says_how_to_go_on(trained, pairs, tmp_path):
    out = tmp_path / "model"
    process = subprocess.Popen(words(pairs, out, checkpoint_minutes=0), stderr=subprocess.PIPE, text=True)
    wait_for(out / "checkpoint.safetensors", process)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume goes on" in said
    assert "Traceback" not in said
    done = call(pairs, out, "--resume", checkpoint_minutes=0)
    assert done.returncode == 0, done.stderr
    assert find_model(out).card.weights_sha256 == find_model(trained[0]).card.weights_sha256


def with_mask(pairs):
    """Write a manifest of the same pairs, of which the first has a mask."""
    cv2.imwrite(str(pairs.with_name("mask.png")), np.pad(np.full((150, 150), 255, dtype=np.uint8), ((0, 10), (0, 10))))
    head, first, *others = pairs.read_text().splitlines()
    rows = [f"{head},fixed_mask", f"{first},mask.png", *(f"{row}," for row in others)]
    masked = pairs.with_name("masked.csv")
    masked.write_text("\n".join(rows) + "\n")
    return masked


@pytest.mark.slow
def test_a_training_without_progress_ends_early_and_resumes_to_the_same_weights(pairs, tmp_path):
    # Twelve validations, each better than all before it, would be needed to go on to the end.
    settings = {"steps": 24, "validate_every": 1, "patience": 1, "checkpoint_minutes": 0}
    whole = call(pairs, tmp_path / "whole", **settings)
    assert whole.returncode == 0, whole.stderr
    card = find_model(tmp_path / "whole").card
    assert 12 < card.training["steps_done"] < 24
    process = subprocess.Popen(words(pairs, tmp_path / "half", **settings), stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "half" / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = call(pairs, tmp_path / "half", "--resume", **settings)
    assert done.returncode == 0, done.stderr
    resumed = find_model(tmp_path / "half").card
    assert resumed.training["steps_done"] == card.training["steps_done"]
    assert resumed.weights_sha256 == card.weights_sha256


@pytest.mark.slow
def test_a_model_is_measured_on_pairs_that_are_held_out(pairs, stains, tmp_path):
    other = write_pairs(tmp_path / "other", stains[:, 320:], 3)
    done = call(pairs, tmp_path / "model", "--held-out", str(other), "--resume")
    assert done.returncode == 3
    assert "there is nothing to resume" in done.stderr
    (tmp_path / "model").mkdir()
    done = call(pairs, tmp_path / "model", "--held-out", str(other), "--resume")
    assert done.returncode == 0, done.stderr
    assert "no checkpoint yet: beginning anew" in done.stderr
    card = find_model(tmp_path / "model").card
    assert card.held_out == "The pairs t0, t1, t2"
    assert card.metrics["measured_on"] == "3 parts, which the model never read, of t0, t1, t2"
    assert len(card.data_sha256) == 12
    assert "unseen tissue" in (tmp_path / "model" / "report.html").read_text()


def test_pairs_cannot_be_learnt_from_and_held_out(pairs, tmp_path):
    done = call(pairs, tmp_path / "model", "--held-out", str(pairs))
    assert done.returncode == 3
    assert "slides of t0, t1, t2, t3, t4, t5 are also learnt from" in done.stderr


def wait_for(path, process):
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, "ended before its first checkpoint"
        time.sleep(0.1)
    raise AssertionError(f"{path} did not appear")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("shifted", "px) off"),
        ("few", "training needs 4"),
        ("not finite", "not finite"),
    ],
)
def test_pairs_that_cannot_be_learnt_from_are_refused(stains, tmp_path, spoil, message):
    image = stains.copy()
    if spoil == "shifted":
        image[1] = np.roll(image[1], 14, axis=1)
    pairs = write_pairs(tmp_path, image, 2 if spoil == "few" else 6)
    if spoil == "not finite":
        broken = image[0, :160, :160].astype(np.float32)
        broken[40:60, 40:60] = np.nan
        cv2.imwrite(str(tmp_path / "h0.tiff"), broken)
        pairs.write_text(pairs.read_text().replace("h0.png", "h0.tiff"))
    done = call(pairs, tmp_path / "model", **({"crop": 104} if spoil == "few" else {}))
    assert done.returncode == 3, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model" / "card.json").exists()


def test_a_loss_that_explodes_is_a_clear_error(pairs, tmp_path):
    done = call(pairs, tmp_path / "model", learning_rate=1e30, optimiser='"sgd"', clip=1e30)
    assert done.returncode == 3
    assert "lower learning_rate" in done.stderr


def test_one_source_is_asked_for():
    for arguments in ([], ["pairs.csv", "--from-run", "run"]):
        done = subprocess.run([str(PROGRAM), "train", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "--from-run" in done.stderr
