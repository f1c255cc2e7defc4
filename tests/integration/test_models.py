"""The shipped models, on real tissue that they have not seen."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from comir_batch.core.geometry import Region
from comir_batch.representation.field import field
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.normalise import to_input
from comir_batch.representation.store import find_model, list_models
from comir_batch.representation.weights import load
from comir_batch.training.crops import PairReader, TrainingPair
from comir_batch.training.evaluate import represent_window
from comir_batch.training.recipes import RECIPES

NAMES = sorted(RECIPES)


@pytest.fixture(scope="module", params=NAMES)
def held_out(request, tmp_path_factory):
    """A shipped model, and a reader of the part of its slides that it has not seen."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    if name == "dapi-tritc":
        folder = request.getfixturevalue("shared_data") / "tissue_dapi_tritc_ndpi"
    recipe, model = RECIPES[name], find_model(name)
    pair = TrainingPair(*recipe.slides(folder), recipe.held_out)
    with PairReader(pair, model.card.modalities, model.card.mpp, whole_ranges=True) as reader:
        yield model, reader


def test_every_recipe_is_shipped_and_every_shipped_model_has_a_recipe():
    assert [card.name for card in list_models()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_they_must(name):
    card, recipe = find_model(name).card, RECIPES[name]
    assert (card.modalities, card.mpp) == (recipe.config.modalities, recipe.config.mpp)
    assert card.slides == 1
    assert len(card.data_sha256) == 2
    made_by = asdict(recipe.config)
    assert {key: value for key, value in card.training.items() if key in made_by and made_by[key] != value} == {}
    assert card.training["seed"] == recipe.config.seed
    assert card.metrics["retrieved"] > 0.9
    assert f"recipes {name}" in card.metrics["command"]


@pytest.mark.parametrize("name", NAMES)
def test_networks_have_the_stated_size(name):
    model = find_model(name)
    for card in model.card.modalities:
        network = DenseUNet(card.architecture)
        assert sum(parameter.numel() for parameter in network.parameters()) == 164_600
        assert load(model, card.modality, "cpu").halo == field(card.architecture).halo


def test_representations_of_unseen_tissue_agree(held_out):
    model, reader = held_out
    fixed, moving = (
        represent_window(side, load(model, card.modality, "cpu"))
        for side, card in zip((reader.fixed, reader.moving), model.card.modalities, strict=True)
    )
    tissue = reader.fixed.tissue()
    agreement = np.corrcoef(fixed[0][tissue], moving[0][tissue])[0, 1]
    assert agreement == pytest.approx(model.card.metrics["correlation"], abs=0.01)
    assert agreement > 0.4
    shifted = np.corrcoef(fixed[0][tissue], np.roll(moving[0], 40, axis=1)[tissue])[0, 1]
    assert shifted < agreement - 0.3


def test_blocks_of_a_real_slide_equal_the_whole(held_out):
    model, reader = held_out
    card = model.card.modalities[0]
    representer = load(model, card.modality, "cpu")
    width, height = 171, 133
    pixels = reader.fixed.pixels(Region(0, 0, width, height, 0))
    halo, stride = field(card.architecture)
    image = to_input(pixels, card.input, reader.fixed.ranges)
    padding = ((0, 0), (halo, halo + -height % stride), (halo, halo + -width % stride))
    with torch.inference_mode():
        whole = representer._network(torch.from_numpy(np.pad(image, padding, mode="reflect"))[None])[0].numpy()
    whole = whole[:, halo : halo + height, halo : halo + width]
    for box in ((0, 0, 96, 64), (96, 0, 171, 64), (0, 64, 96, 133), (96, 64, 171, 133), (11, 7, 100, 90)):
        region = Region(*box)
        found = representer.represent(lambda r: pixels[:, *r.slices], (width, height), region, reader.fixed.ranges)
        assert np.abs(found - whole[:, *region.slices]).max() <= 1e-5
