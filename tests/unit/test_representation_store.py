import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from comir_batch.core.card import Architecture, Input, ModalityCard, ModelCard
from comir_batch.core.errors import ModelError
from comir_batch.core.geometry import Region
from comir_batch.representation.network import DenseUNet
from comir_batch.representation.normalise import Range
from comir_batch.representation.store import (
    add_model,
    as_name,
    find_model,
    known_models,
    list_models,
    own_models,
    remove_model,
    save_card,
    unreadable_models,
)
from comir_batch.representation.weights import load, save

TINY = Architecture(in_channels=1, init_filters=4, down=(1,), bottleneck=1, up=(1,), growth=4)


@pytest.fixture
def folder(tmp_path):
    modalities = tuple(ModalityCard(modality=m, architecture=TINY) for m in ("a", "b"))
    texts = {"trained_on": "noise", "held_out": "nothing", "licence": "MIT", "weights_sha256": ""}
    card = ModelCard(name="tiny", modalities=modalities, mpp=1.0, slides=1, **texts)
    torch.manual_seed(0)
    networks = {m.modality: DenseUNet(m.architecture) for m in modalities}
    save(tmp_path / "models" / "tiny", card, networks)
    return tmp_path / "models" / "tiny"


def test_what_was_saved_is_loaded(folder):
    model = find_model(folder)
    representer = load(model, "b", "cpu")
    torch.manual_seed(0)
    DenseUNet(TINY)
    expected = DenseUNet(TINY).eval()
    image = np.random.default_rng(0).random((1, 6, 8)).astype(np.float32)
    found = representer.represent(lambda r: image[:, *r.slices], (8, 6), Region(0, 0, 8, 6), (Range(0, 1),))
    assert found.shape == (1, 6, 8)
    state = representer._network.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.state_dict().items())


def test_a_process_loads_a_network_once(folder):
    model = pickle.loads(pickle.dumps(find_model(str(folder))))  # noqa: S301  as a task would carry it
    assert load(model, "a", "cpu") is load(find_model(folder), "a", "cpu")
    assert load(model, "a", "cpu") is not load(model, "b", "cpu")


def test_threads_that_ask_at_once_get_one_network(folder):
    model, together = find_model(folder), Barrier(8, timeout=20)

    def ask(_):
        together.wait()
        return load(model, "a", "cpu")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The folder of the user's own models; there is none yet."""
    monkeypatch.setenv("COMIR_BATCH_MODELS", str(tmp_path / "own"))
    return tmp_path / "own"


def test_an_added_model_is_found_by_name_beside_the_shipped_ones(folder, own):
    shipped = list_models()
    (folder / "notes.txt").write_text("not a part of the model")
    assert add_model(find_model(folder)) == own / "tiny"
    found = find_model("tiny")
    assert found.folder == (own / "tiny").resolve()
    assert not found.shipped
    assert sorted([*(card.name for card in shipped), "tiny"]) == [card.name for card in list_models()]
    assert [model.shipped for model in known_models()].count(False) == 1
    assert sorted(path.name for path in own.rglob("*")) == ["card.json", "tiny", "weights.safetensors"]
    load(found, "a", "cpu")


def test_a_name_that_is_taken_is_refused_or_replaced(folder, own):
    add_model(find_model(folder))
    card = find_model(folder).card
    save_card(folder, card.model_copy(update={"licence": "CC0"}))
    with pytest.raises(ModelError, match="add --replace"):
        add_model(find_model(folder))
    assert find_model("tiny").card == card
    add_model(find_model(folder), replace=True)
    assert find_model("tiny").card.licence == "CC0"
    assert [path.name for path in own.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("name", "said"), [("dapi-tritc", "a shipped model has the name"), ("../x", "cannot be"), (".x", "cannot be")]
)
def test_names_that_no_own_model_can_have(folder, own, name, said):
    model = find_model(folder)
    save_card(folder, model.card.model_copy(update={"name": name}))
    with pytest.raises(ModelError, match=said):
        add_model(find_model(folder), replace=True)
    assert not own.exists()


@pytest.mark.parametrize("content", [b"{}", b"\xff\xfe", '{"licence": "\u00a9"}'.encode("latin-1")])
def test_a_card_that_cannot_be_read_leaves_the_other_models_usable(folder, own, content):
    known = list_models()
    add_model(find_model(folder))
    (own / "other").mkdir()
    (own / "other" / "card.json").write_bytes(content)
    assert sorted([*(card.name for card in known), "tiny"]) == [card.name for card in list_models()]
    assert find_model("tiny").card.name == "tiny"
    assert list(unreadable_models()) == ["other"]
    with pytest.raises(ModelError, match=r"is not a model card of version 1: .*comir-batch models remove other"):
        find_model("other")
    remove_model("other")
    assert not unreadable_models()


def test_names_of_models_are_made_of_those_of_modalities():
    names = {"he-shg": "he-shg", "H&E (40x)-DAB": "H-E-40x--DAB", "µ-x": "x", "...": "model"}
    assert {words: as_name(words) for words in names} == names


def test_only_own_models_are_removed(folder, own):
    add_model(find_model(folder))
    for name in ("dapi-tritc", "../own/tiny", "missing"):
        with pytest.raises(ModelError, match="you have added no model"):
            remove_model(name)
    remove_model("tiny")
    assert not list(own.iterdir())


def test_own_models_lie_in_the_data_folder_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("COMIR_BATCH_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert own_models() == tmp_path / "comir-batch" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert own_models() == tmp_path / ".local" / "share" / "comir-batch" / "models"


def test_a_known_name_means_the_model_and_not_a_folder_of_that_name(folder, monkeypatch):
    shipped = list_models()[0].name
    own = folder.parent / shipped
    folder.rename(own)
    monkeypatch.chdir(own.parent)
    assert find_model(shipped).folder != own.resolve()
    for meant in (f"./{shipped}", str(own), Path(shipped)):
        assert find_model(meant).folder == own.resolve()


def test_a_folder_needs_no_separator_where_no_model_has_its_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert find_model("tiny").folder == folder.resolve()


@pytest.mark.parametrize("name", ["a", "a.stem"])
def test_two_networks_whose_weights_cannot_be_told_apart_are_refused(folder, name):
    card = json.loads((folder / "card.json").read_text())
    for network, modality in zip(card["modalities"], ("a", name), strict=True):
        network["modality"] = modality
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=f"modalities 'a' and '{name}' cannot be told apart"):
        find_model(folder)


def test_a_model_that_is_not_there_is_an_error_that_lists_those_that_are():
    names = [card.name for card in list_models()]
    with pytest.raises(ModelError, match=r"no model 'missing'; there are: .*" + ", ".join(names)):
        find_model("missing")


def test_unknown_modality(folder):
    with pytest.raises(ModelError, match="does not know the modality 'c'; it knows a, b"):
        load(find_model(folder), "c", "cpu")


def test_damaged_weights_are_never_loaded(folder):
    weights = folder / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match="is damaged: its SHA-256"):
        load(find_model(folder), "a", "cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="cannot read the weights"):
        load(find_model(folder), "a", "cpu")


def test_weights_of_another_network_are_refused(folder):
    model = find_model(folder)
    wider = TINY.model_copy(update={"growth": 6})
    save_card(
        folder,
        model.card.model_copy(
            update={"modalities": tuple(ModalityCard(modality=m, architecture=wider) for m in ("a", "b"))}
        ),
    )
    with pytest.raises(ModelError, match="do not fit its card"):
        load(find_model(folder), "a", "cpu")


def test_absurd_widths_are_refused_without_taking_their_memory(folder):
    card = find_model(folder).card
    absurd = TINY.model_copy(update={"init_filters": 10**9})
    modalities = tuple(ModalityCard(modality=m, architecture=absurd) for m in ("a", "b"))
    save_card(folder, card.model_copy(update={"modalities": modalities}))
    with pytest.raises(ModelError, match="do not fit its card"):
        load(find_model(folder), "a", "cpu")


def test_percentiles_that_do_not_ascend_are_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    card["modalities"][1]["input"] |= {"low": 60, "high": 50}
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"modalities.1.input: .*, the percentile low, 60, must be below high, 50"):
        find_model(folder)


def test_a_pickle_with_the_right_digest_is_refused(folder):
    model = find_model(folder)
    torch.save({"a.stem.weight": torch.zeros(1)}, folder / "weights.safetensors")
    import hashlib

    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    save_card(folder, model.card.model_copy(update={"weights_sha256": digest}))
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load(find_model(folder), "a", "cpu")


def test_two_networks_with_other_numbers_of_latent_channels_are_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    card["modalities"][0]["architecture"]["latent_channels"] = 3
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"the networks have \[1, 3\] latent channels"):
        find_model(folder)


def test_what_a_card_may_say_since_later_is_not_written_where_it_says_nothing(folder):
    card = find_model(folder).card
    assert {"scaling", "full", "photometric"}.isdisjoint((folder / "card.json").read_text().split('"'))
    first, second = card.modalities
    said = first.model_copy(update={"photometric": "dark", "input": Input(scaling="full", full=4096)})
    save_card(folder, card.model_copy(update={"modalities": (said, second)}))
    assert find_model(folder).card.modalities == (said, second)


def test_a_shipped_card_that_is_read_and_written_stays_as_it_was():
    for model in known_models():
        assert model.card.model_dump_json(indent=2) + "\n" == (model.folder / "card.json").read_text()


def test_a_card_of_another_kind_is_refused(folder):
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "version": 2, "mpp": -1}))
    with pytest.raises(ModelError, match=r"is not a model card of version 1: version: .*; mpp: "):
        find_model(folder)


def test_weights_lie_under_the_modalities_names(folder):
    names = load_file(folder / "weights.safetensors")
    assert {name.split(".")[0] for name in names} == {"a", "b"}
    assert "b.head.weight" in names
    save_file(names, folder / "copy.safetensors")
