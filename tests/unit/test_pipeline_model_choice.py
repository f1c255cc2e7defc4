"""Which model a pair gets; the models are the shipped ones."""

from __future__ import annotations

import pytest

from comir_batch.core.errors import ModelError
from comir_batch.core.slide import Level, SlideInfo
from comir_batch.pipeline.model_choice import choose_model
from comir_batch.representation.store import list_models


def slide(mpp: float = 0.5, channels: int = 1, side: int = 2000) -> SlideInfo:
    names = tuple(f"c{number}" for number in range(channels))
    return SlideInfo((Level(side, side, 1.0, 1.0),), names, "uint8", mpp, mpp, "dark", "test")


@pytest.fixture
def card():
    cards = list_models()
    if not cards:
        pytest.skip("no model is shipped yet")
    return cards[0]


def modalities(card, **more):
    """Both sides as the card wants them."""
    sides = []
    for network in card.modalities:
        channels = network.architecture.in_channels if network.input.reduction == "none" else 2
        sides.append((network.modality, slide(**{"mpp": card.mpp, "channels": channels} | more)))
    return sides


def test_the_one_model_that_knows_both_is_taken_and_said(card):
    fixed, moving = modalities(card)
    assert sum(other.knows(fixed[0], moving[0]) for other in list_models()) == 1
    model, sentence = choose_model("", fixed, moving)
    assert model.card.name == card.name
    assert card.name in sentence
    again, _ = choose_model("", moving, fixed)
    assert again == model


def test_a_model_is_taken_by_name_or_folder(card):
    fixed, moving = modalities(card)
    by_name, _ = choose_model(card.name, fixed, moving)
    by_folder, _ = choose_model(str(by_name.folder), fixed, moving)
    assert by_name == by_folder


@pytest.mark.parametrize("asked", ["none", "None"])
def test_none_means_the_raw_images(asked):
    model, sentence = choose_model(asked, ("dapi", slide()), ("tritc", slide()))
    assert model is None
    assert sentence.startswith("No model, as asked")


def test_modalities_that_no_model_knows_are_registered_raw_and_that_is_said():
    model, sentence = choose_model("", ("x-ray", slide()), ("sonar", slide()))
    assert model is None
    assert "no shipped model knows x-ray and sonar" in sentence


def test_a_model_of_yours_that_cannot_be_read_is_named(tmp_path, monkeypatch, card):
    monkeypatch.setenv("COMIR_BATCH_MODELS", str(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "card.json").write_text("{}")
    model, sentence = choose_model("", *modalities(card))
    assert model.card == card
    assert sentence.endswith("The cards of models of yours cannot be read: other; see comir-batch models list.")


def test_an_unknown_model_is_an_error_that_lists_those_that_are():
    with pytest.raises(ModelError) as caught:
        choose_model("dapi-tritcc", ("dapi", slide()), ("tritc", slide()))
    assert "'dapi-tritcc'" in str(caught.value)
    for known in list_models():
        assert known.name in str(caught.value)


def test_a_model_for_other_modalities_is_an_error_if_asked_for(card):
    with pytest.raises(ModelError, match="not x-ray"):
        choose_model(card.name, ("x-ray", slide()), modalities(card)[1])


def test_a_slide_too_coarse_for_the_model_is_an_error_if_asked_for_and_else_passed_over(card):
    coarse = modalities(card, mpp=card.mpp * card.mpp_tolerance * 1.1)
    with pytest.raises(ModelError, match="was trained at"):
        choose_model(card.name, *coarse)
    model, sentence = choose_model("", *coarse)
    assert model is None
    assert "passed over" in sentence


def test_a_slide_with_other_channels_is_an_error_if_asked_for():
    strict = [card for card in list_models() if all(part.input.reduction == "none" for part in card.modalities)]
    if not strict:
        pytest.skip("every shipped model reduces the channels, however many")
    with pytest.raises(ModelError, match=r"channels of .*, the slide has 7"):
        choose_model(strict[0].name, *modalities(strict[0], channels=7))
