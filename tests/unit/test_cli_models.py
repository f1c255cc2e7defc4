"""`models`: verify, add, list and remove, as a user calls them."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from typer.testing import CliRunner

from comir_batch.cli.app import app
from comir_batch.core.card import Architecture, Input, ModalityCard, ModelCard
from comir_batch.core.config_file import load_config
from comir_batch.core.events import EventBus
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.execution.serial import SerialExecutor
from comir_batch.pipeline.folders import folders_read
from comir_batch.pipeline.inspect import inspect_manifest
from comir_batch.pipeline.model_choice import choose_model
from comir_batch.pipeline.run import RunRequest, run
from comir_batch.representation import inference
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.store import find_model, list_models, save_card
from comir_batch.representation.verify import verify
from comir_batch.representation.weights import save as save_model

TINY = Architecture(in_channels=1, init_filters=4, down=(1, 2), bottleneck=1, up=(2, 1), growth=4)


def make(folder, name="tiny", modalities=("a", "b"), **card):
    networks = [ModalityCard(modality=modality, architecture=TINY) for modality in modalities]
    texts = {"trained_on": "noise", "held_out": "nothing", "licence": "MIT", "weights_sha256": ""}
    torch.manual_seed(0)
    made = ModelCard.model_validate({"name": name, "modalities": networks, "mpp": 1.0, "slides": 1, **texts, **card})
    save_model(folder, made, {part.modality: DenseUNet(part.architecture) for part in made.modalities})
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "trained")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("COMIR_BATCH_MODELS", str(tmp_path / "own"))
    return tmp_path / "own"


def models(*words):
    return CliRunner().invoke(app, ["models", *map(str, words)])


def change_weights(folder, name, change):
    """Change one tensor, and the digest with it."""
    tensors = load_file(folder / "weights.safetensors")
    change(tensors[name])
    data = save(tensors)
    (folder / "weights.safetensors").write_bytes(data)
    card = find_model(folder).card.model_copy(update={"weights_sha256": hashlib.sha256(data).hexdigest()})
    save_card(folder, card)


def failures(folder):
    return {check.name: check.found for check in verify(find_model(folder)) if check.state == "failed"}


def test_a_sound_model_passes_every_check(folder):
    told = models("verify", folder)
    assert told.exit_code == 0, told.output
    lines = told.stdout.splitlines()[2:]
    assert [line.split("  ")[0] for line in lines] == [
        f"{modality}: {what}" for modality in "ab" for what in ("weights", "numbers", "batch norms", "halo", "blocks")
    ]
    assert all(" ok " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "change", "check", "said"),
    [
        ("a.stem.weight", lambda tensor: tensor[0].fill_(np.nan), "a: numbers", "stem.weight is not finite"),
        ("b.stem.bias", lambda tensor: tensor[0].fill_(np.inf), "b: numbers", "stem.bias is not finite"),
        ("a.bottleneck.layers.0.0.running_var", lambda tensor: tensor.mul_(-1), "a: batch norms", "not positive"),
        ("b.head.weight", lambda tensor: tensor.zero_(), "b: halo", "does not depend on the image"),
    ],
)
def test_weights_that_are_wrong_are_found(folder, name, change, check, said):
    change_weights(folder, name, change)
    assert said in failures(folder)[check]
    assert models("verify", folder).exit_code == 3


def test_a_halo_that_is_too_small_is_found(folder, monkeypatch):
    monkeypatch.setattr(inference, "field", lambda _: (4, 4))
    assert {"a: halo", "a: blocks", "b: halo", "b: blocks"} == failures(folder).keys()


def test_damaged_weights_are_found_though_they_were_loaded_before(folder):
    assert not failures(folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "is damaged: its SHA-256" in failures(folder)["a: weights"]


def test_a_card_of_another_network_is_found(folder):
    card = json.loads((folder / "card.json").read_text())
    card["modalities"][1]["architecture"]["growth"] = 5
    (folder / "card.json").write_text(json.dumps(card))
    assert "do not fit its card" in failures(folder)["b: weights"]


def test_a_model_is_added_listed_and_removed(folder, own):
    assert str(own / "tiny") in models("add", folder).stdout
    (line,) = (line for line in models("list").stdout.splitlines() if line.startswith("tiny "))
    assert " yours " in line
    assert sum(" shipped " in line for line in models("list").stdout.splitlines()) == len(list_models()) - 1
    assert json.loads(models("show", "tiny").stdout)["name"] == "tiny"
    assert models("verify", "tiny").exit_code == 0
    refused = models("add", folder)
    assert refused.exit_code == 3
    assert "add --replace" in refused.stderr
    assert models("add", folder, "--replace").exit_code == 0
    assert models("remove", "tiny").exit_code == 0
    assert models("show", "tiny").exit_code == 3


def test_what_is_not_sound_is_not_added(folder, own, tmp_path):
    change_weights(folder, "a.stem.weight", lambda tensor: tensor.fill_(np.nan))
    refused = models("add", folder)
    assert refused.exit_code == 3
    assert refused.stderr.count("\n") == 1
    assert "was not added: a: numbers: stem.weight is not finite" in refused.stderr
    assert models("add", tmp_path / "missing").exit_code == 3
    assert not own.exists()


def slide(mpp=1.0, channels=1, dtype="uint8", photometric="dark"):
    names = tuple(f"c{number}" for number in range(channels))
    return SlideInfo((Level(2000, 2000, 1.0, 1.0),), names, dtype, mpp, mpp, photometric, "test")


@pytest.mark.usefixtures("own")
def test_added_models_are_chosen_before_shipped_ones(tmp_path):
    shipped = list_models()[0]
    names = tuple(part.modality for part in shipped.modalities)
    models("add", make(tmp_path / "trained", "atlas", names))
    model, sentence = choose_model("", (names[0], slide()), (names[1], slide()))
    assert model.card.name == "atlas"
    assert sentence == f"Model atlas, the one added model that knows {names[0]} and {names[1]}."
    models("add", make(tmp_path / "other", "other", names))
    model, sentence = choose_model("", (names[0], slide()), (names[1], slide()))
    assert model is None
    assert "2 added models know" in sentence


def test_a_container_must_see_the_folder_of_an_added_model(tmp_path, own):
    import cv2

    from comir_batch.core.manifest import read_manifest

    models("add", make(tmp_path / "trained"))
    for name in ("x.png", "y.png"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    header = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp,model"
    (tmp_path / "m.csv").write_text(f"{header}\np,x.png,y.png,a,b,1,1,tiny\n")
    inspection = inspect_manifest(read_manifest(tmp_path / "m.csv"), "")
    assert not inspection.problems
    assert (own / "tiny").resolve() in folders_read(inspection.pairs)
    (pair,) = inspection.pairs
    # What a worker is given is the folder, which means the model though the worker knows no added one by name.
    assert pair.model.reference == str((own / "tiny").resolve())
    assert find_model(pair.model.reference).card.name == "tiny"


def test_of_a_shipped_model_a_container_has_its_own_copy(tmp_path):
    import cv2

    from comir_batch.core.manifest import read_manifest

    for name in ("x.png", "y.png"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    header = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp,model"
    (tmp_path / "m.csv").write_text(f"{header}\np,x.png,y.png,dapi,tritc,1,1,dapi-tritc\n")
    (pair,) = inspect_manifest(read_manifest(tmp_path / "m.csv"), "").pairs
    assert folders_read([pair]) == (tmp_path,)
    assert pair.model.reference == "dapi-tritc"
    assert find_model(pair.model.reference) == pair.model


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("asked", ["./trained", "trained"])
def test_a_run_remembers_where_a_model_s_folder_is(tmp_path, monkeypatch, asked):
    import cv2

    make(tmp_path / "trained", "atlas")
    for name in ("x.png", "y.png"):
        cv2.imwrite(str(tmp_path / name), np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    header = "pair_id,fixed,moving,fixed_modality,moving_modality,fixed_mpp,moving_mpp"
    (tmp_path / "m.csv").write_text(f"{header}\np,x.png,y.png,a,b,1,1\n")
    monkeypatch.chdir(tmp_path)
    request = RunRequest(tmp_path / "m.csv", tmp_path / "run", load_config(None, {"model": asked}), "chunk")
    run(request, EventBus(), lambda _config: SerialExecutor())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    later = CliRunner().invoke(app, ["chunk", str(tmp_path / "run"), "--executor", "serial"])
    assert later.exit_code == 0, later.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["model"] == str(tmp_path / "trained")


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((1.0, 1.0), "Model tiny, as asked."),
        ((1.09, 1.09), "Model tiny, as asked; worked on at 1.09 µm/px, trained at 1."),
        ((0.5, 0.4), "Model tiny, as asked; worked on at 1 (fixed) and 0.8 (moving) µm/px, trained at 1."),
    ],
)
def test_a_pixel_size_other_than_that_of_the_training_is_said(folder, sizes, said):
    model, sentence = choose_model(str(folder), ("a", slide(sizes[0])), ("b", slide(sizes[1])))
    assert model.card.name == "tiny"
    assert sentence == said


@pytest.mark.parametrize(
    ("network", "wrong", "right", "said"),
    [
        ({}, {"channels": 3}, {}, r"takes 1 channels of a, the slide has 3 \(c0, c1, c2\)"),
        (
            {"photometric": "brightfield"},
            {},
            {"photometric": "brightfield"},
            "brightfield images of a, the slide is dark",
        ),
        (
            {"input": Input(scaling="full", full=4096)},
            {},
            {"dtype": "uint16"},
            "up to 4096, the slide has uint8 pixels",
        ),
        (
            {"input": Input(scaling="full", full=4096)},
            {},
            {"dtype": "float32"},
            "up to 4096, the slide has uint8 pixels",
        ),
    ],
)
def test_slides_that_do_not_fit_the_card_are_refused(folder, network, wrong, right, said):
    from comir_batch.core.errors import ModelError

    model = find_model(folder)
    first, second = model.card.modalities
    save_card(folder, model.card.model_copy(update={"modalities": (first.model_copy(update=network), second)}))
    with pytest.raises(ModelError, match=said):
        choose_model(str(folder), ("a", slide(**wrong)), ("b", slide()))
    assert choose_model(str(folder), ("a", slide(**right)), ("b", slide()))[0] is not None
