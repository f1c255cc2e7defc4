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
from runs import PROGRAM
from skimage.data import immunohistochemistry

from comir_batch.representation.store import find_model
from comir_batch.training.ihc import haematoxylin_dab_channels

if TYPE_CHECKING:
    from pathlib import Path

HEADER = ("pair_id", "fixed", "moving", "fixed_modality", "moving_modality", "fixed_mpp", "moving_mpp")
# Minutes become seconds: few steps of few small crops.
QUICK = {"steps": 6, "batch": 2, "crop": 32, "contrast": 16, "validate_every": 3, "validation_fields": 4, "threads": 1}


def write_pairs(folder: Path, stains: np.ndarray, tiles: int = 6) -> Path:
    """Write tiles of 160 pixels of both stains as pairs, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(tiles):
        y, x = divmod(number, 3)
        tile = stains[:, 160 * y : 160 * y + 160, 160 * x : 160 * x + 160]
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
        "card.json",
        "report.html",
        "training.json",
        "weights.safetensors",
    ]
    card = find_model(out).card
    assert (card.name, card.slides, card.mpp) == ("haematoxylin-dab", 6, 0.5)
    assert card.training["steps_done"] == 6
    assert len(card.data_sha256) == 12
    assert {"correlation", "retrieved", "turned_dab"} <= set(card.metrics)
    record = json.loads((out / "training.json").read_text())
    assert len(record["losses"]) == 6
    assert [v["step"] for v in record["validations"]] == [3, 6]
    assert "step 6 of 6" in done.stderr
    assert "<svg" in (out / "report.html").read_text()


def test_what_is_there_is_not_overwritten(trained, pairs):
    done = call(pairs, trained[0])
    assert done.returncode == 3
    assert "holds a model already. Choose another --out" in done.stderr


def test_the_trained_model_runs(trained, pairs, tmp_path):
    given = ["--model", str(trained[0]), "--set", "execution.executor=serial", "--set", "chunk.mpp=0.5"]
    done = subprocess.run(
        [str(PROGRAM), "represent", str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3  # no run there yet
    done = subprocess.run(
        [str(PROGRAM), "plan", str(pairs), *given[:2]], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "haematoxylin-dab" in done.stdout


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
        ("shifted", "t0"),
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
