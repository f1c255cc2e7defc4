"""The shipped models, on real images that they have not seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from comir_batch.core.config import ExecutionConfig
from comir_batch.core.geometry import Region
from comir_batch.io.digest import slide_digest
from comir_batch.representation.field import field
from comir_batch.representation.normalise import to_input
from comir_batch.representation.store import find_model, list_models
from comir_batch.representation.verify import verify
from comir_batch.representation.weights import load
from comir_batch.training.alignment import measure
from comir_batch.training.config import load_train_config
from comir_batch.training.crops import PairReader
from comir_batch.training.evaluate import evaluate
from comir_batch.training.pairs import prepare
from comir_batch.training.split import WHOLE
from comir_batch.training.unseen import unseen_parts

RECIPES = Path(__file__).resolve().parents[2] / "examples" / "models"
NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))


def prepared(name, folder, request):
    """Write the pairs of a recipe; return the manifest of what is held out."""
    data = [] if name == "haematoxylin-dab" else ["--data", str(request.getfixturevalue("shared_data"))]
    command = [sys.executable, str(RECIPES / "prepare.py"), name, *data, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    held_out = folder / "held-out.csv"
    return held_out if held_out.exists() else folder / "pairs.csv"


@pytest.fixture(scope="module", params=NAMES)
def held_out(request, tmp_path_factory):
    """A shipped model, and the parts of images that it has not seen."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = find_model(name)
    serial = ExecutionConfig(executor="serial", device="cpu")
    data = prepare(prepared(name, folder, request), folder / "data", model.card.mpp, serial, lambda _: None)
    parts, sentence = unseen_parts(model.card, data.pairs)
    assert "Careful" not in sentence
    return model, parts


def test_every_recipe_is_shipped_and_every_shipped_model_has_a_recipe():
    assert [card.name for card in list_models()] == NAMES


def test_aligned_tiles_with_little_tissue_raise_no_alarm(request, tmp_path):
    prepared("he-stain", tmp_path, request)
    serial = ExecutionConfig(executor="serial", device="cpu")
    pairs = prepare(tmp_path / "pairs.csv", tmp_path / "data", 0.5, serial, lambda _: None).pairs
    found = [measure(pair, WHOLE) for pair in pairs]
    assert max(alignment.off_px for alignment in found) < 1
    assert sum(alignment.known for alignment in found) >= 14


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_they_must(name):
    card = find_model(name).card
    config = load_train_config("compact", RECIPES / f"{name}.toml", {})
    assert (card.name, card.licence, card.trained_on) == (name, config.licence, config.trained_on)
    assert card.mpp == pytest.approx(config.mpp)
    made_by = config.model_dump(mode="json")
    compared = {key: value for key, value in card.training.items() if isinstance(made_by.get(key), int | float)}
    assert {key: value for key, value in compared.items() if made_by[key] != value} == {}
    assert len(compared) > 20
    assert card.training["region"] == " ".join(f"{share:g}" for share in config.region)
    for modality, settings in zip(card.modalities, (config.fixed, config.moving), strict=True):
        assert modality.input == settings
    assert {"correlation", "retrieved"} <= set(card.metrics)
    assert sum(path.stat().st_size for path in find_model(name).folder.iterdir()) < 5_000_000


def test_the_card_of_a_real_pair_names_its_very_files(ndpi_pair):
    card = find_model("dapi-tritc").card
    assert card.data_sha256 == {
        f"ndpi/{side}/{path.name}": slide_digest(path)
        for side, path in zip(("fixed", "moving"), ndpi_pair, strict=True)
    }


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_are_sound(name):
    checks = list(verify(find_model(name)))
    assert len(checks) > 3
    assert [check for check in checks if check.state != "ok"] == []


@pytest.mark.slow
def test_representations_of_unseen_images_agree_as_the_card_says(held_out):
    model, parts = held_out
    found = evaluate(model, parts, seed=int(model.card.training["seed"]))
    # A few places, drawn anew: no worse than the card says.
    for figure, slack in (("correlation", 0.05), ("true_pairs", 0.05), ("retrieved", 0.1)):
        assert found[figure] > model.card.metrics[figure] - slack
    assert found["true_pairs"] > found["wrong_pairs"] + 0.2
    for modality in model.card.modalities:
        assert found[f"turned_{modality.modality}"] > 0.7


def test_blocks_of_a_real_slide_equal_the_whole(held_out):
    model, parts = held_out
    card = model.card.modalities[0]
    reader = PairReader(parts[0], model.card.modalities, model.card.mpp, whole_ranges=True).fixed
    representer = load(model, card.modality, "cpu")
    width, height = 171, 133
    pixels = reader.pixels(Region(0, 0, width, height, 0))
    halo, stride = field(card.architecture)
    image = to_input(pixels, card.input, reader.ranges)
    padding = ((0, 0), (halo, halo + -height % stride), (halo, halo + -width % stride))
    with torch.inference_mode():
        whole = representer._network(torch.from_numpy(np.pad(image, padding, mode="reflect"))[None])[0].numpy()
    whole = whole[:, halo : halo + height, halo : halo + width]
    for box in ((0, 0, 96, 64), (96, 0, 171, 64), (0, 64, 96, 133), (96, 64, 171, 133), (11, 7, 100, 90)):
        region = Region(*box)
        found = representer.represent(lambda r: pixels[:, *r.slices], (width, height), region, reader.ranges)
        assert np.abs(found - whole[:, *region.slices]).max() <= 1e-4
