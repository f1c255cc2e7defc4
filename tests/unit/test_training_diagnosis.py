"""A diagnosis: its figures on models that are known to be good or bad, its sentences, its JSON and its page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ihc_pairs
import numpy as np
import pytest
from test_report_pages import Page

from comir_batch.core.errors import ConfigError, ModelError
from comir_batch.report.article import Article, article_page
from comir_batch.training.collapse import Spectrum
from comir_batch.training.diagnose import _averaged, _distances, _likeness, diagnose
from comir_batch.training.diagnosis import FAIR, GOOD, Spread
from comir_batch.training.diagnosis_sections import sections
from comir_batch.training.report import judgement
from comir_batch.training.split import WHOLE, Box, Part
from comir_batch.training.unseen import unseen_parts, whole_parts

QUICK = {"crops": 16, "step": 90, "device": "cpu"}
SMALL = Box(y1=60.0)  # so small that crops are


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return ihc_pairs.pair(tmp_path_factory.mktemp("ihc"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ihc_pairs.tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def found(model, pair, tmp_path_factory):
    negated = ihc_pairs.tiny_model(tmp_path_factory.mktemp("negated"), head=lambda weights: -weights)
    return diagnose(model, [Part(pair, SMALL)], [model, negated], **QUICK)


def test_a_diagnosis_measures_all_that_it_should(found):
    assert found.crop == found.success.side == 64
    assert found.success.fields == 4
    assert [turning.modality for turning in found.turning] == ["haematoxylin", "dab"]
    assert found.turning[0].angles == (0, 90, 180, 270, 360)
    assert found.turning[0].turned[0].mean == pytest.approx(1)
    assert found.turning[0].turned[-1].mean == pytest.approx(1, abs=1e-3)
    assert len(found.partners.true) == found.partners.crops == 16
    assert len(found.partners.wrong) == 16 * 15
    for space, dimensions in zip(found.spaces, (64, 4 * 4), strict=True):
        assert set(space.spectra) == {"haematoxylin", "dab", "both"}
        assert {spectrum.dimensions for spectrum in space.spectra.values()} == {dimensions}
        assert space.spectra["both"].samples == 32
        assert [len(points) for points in space.points.values()] == [16, 16]


def test_stability_does_not_heed_the_sign(found):
    assert len(found.stability) == 4
    assert all(each.correlation.mean == pytest.approx(1, abs=1e-4) for each in found.stability)


def test_another_seed_is_another_model(model, pair, tmp_path):
    other = ihc_pairs.tiny_model(tmp_path, seed=1)
    stability = diagnose(model, [Part(pair, SMALL)], [other], **QUICK).stability
    assert [each.other for each in stability] == [f"tiny-1 ({tmp_path.name})"] * 2
    assert all(0 <= each.correlation.low <= each.correlation.mean < 0.99 for each in stability)


def test_the_same_seed_gives_the_same_diagnosis(found, model, pair):
    again = diagnose(model, [Part(pair, SMALL)], **QUICK)
    assert again == replace(found, stability=())


def test_a_network_that_gives_nothing_is_found_out(pair, tmp_path):
    dead = ihc_pairs.tiny_model(tmp_path, head=lambda weights: 0 * weights)
    found = diagnose(dead, [Part(pair, SMALL)], **QUICK)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert '"effective_rank": 0.0' in text
    assert "Bad: the output of dab has collapsed: effective rank 0.0 of 64." in found.findings
    assert any(finding.startswith("Bad: known rigid transforms are found again in 0%") for finding in found.findings)
    assert any(f.startswith("Bad: the representation of dab does not turn with the image") for f in found.findings)
    Page(article_page(Article("t", "s", sections(found))))


def test_json_has_all_figures_and_no_nan(found):
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["model"] == "tiny-0"
    assert read["spaces"][1]["spectra"]["both"]["effective_rank"] > 0
    assert len(read["turning"][0]["mirrored"]) == 5
    assert read["findings"] == list(found.findings)


def test_the_page_says_what_was_found(found):
    page = Page(article_page(Article("Diagnosis", "Unseen.", sections(found))))
    assert all(finding in page.text for finding in found.findings)
    charts = [attrs["aria-label"] for attrs in page.all("svg") if attrs.get("class") == "chart"]
    assert len(charts) == 7
    assert "haematoxylin: 16 points" in charts[-1]
    assert "Stability over seeds" in page.text


def judged(found, **changes):
    return "\n".join(replace(found, **changes).findings)


def test_sentences_tell_good_from_bad(found):
    turning = found.turning[0]
    good = replace(turning, turned=(Spread(0.93, 0.9, 1.0),) * 5, mirrored=(Spread(0.5, 0.4, 0.6),) * 5)
    text = judged(found, turning=(good,), stability=())
    assert "Good: the representation of haematoxylin turns with the image (lowest correlation 0.93, turned by" in text
    assert "Bad: the representation of haematoxylin does not mirror with the image (lowest correlation 0.50," in text
    assert "training with symmetry d4 mends it" in text
    assert "--against MODEL" in text
    success = replace(found.success, levels=(1.0, 0.9, 0.7, 0.4), fields=48)
    assert "Fair: known rigid transforms are found again in 75% of 48 crops" in judged(found, success=success)
    partners = replace(found.partners, retrieved=0.2)
    assert "Bad: 20% of 16 crops correlate best with their partner" in judged(found, partners=partners)


@pytest.mark.parametrize(
    ("success", "sentence"),
    [
        (1.0, "This model can be relied on"),
        (GOOD, "This model can be relied on"),
        (np.nextafter(GOOD, 0), "This model helps, and fails now and then"),
        (FAIR, "This model helps, and fails now and then"),
        (np.nextafter(FAIR, 0), "Do not rely on this model: 30% of the known transforms were not found again."),
        (0.62, "Do not rely on this model: 38% of the known transforms were not found again."),
        (0.0, "Do not rely on this model: 100% of the known transforms were not found again."),
    ],
)
def test_the_judgement_is_true_at_every_share(success, sentence):
    assert judgement(success).startswith(sentence)


def test_the_handbook_names_the_shares_of_the_judgement():
    handbook = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert f"relied on from {100 * GOOD:.0f} % of the transforms on, of help from {100 * FAIR:.0f} % on" in handbook


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((1.0, 1.0, 1.0, 1.0), "Good: the output of dab has not collapsed: effective rank 4.0 of 4."),
        ((1.0, 1e-9, 0.0, 0.0), "Bad: the output of dab has collapsed: effective rank 1.0 of 4."),
        (
            (1.0, 1.0, 1.0, 1e-9),
            "Fair: the output of dab has partly collapsed: effective rank 3.0 of 4; unused dimensions: 1.",
        ),
    ],
)
def test_collapse_is_said_plainly(found, values, sentence):
    output = replace(found.spaces[0], spectra={"dab": Spectrum(100, values)})
    assert sentence in judged(found, spaces=(output,))
    few = replace(found.spaces[0], spectra={"dab": Spectrum(3, (1.0, 1.0, 0.0, 0.0))})
    assert "Good: the output of dab has not collapsed" in judged(found, spaces=(few,))


@pytest.mark.parametrize(
    ("critic", "expected"), [("mse", 2.0), ("l1", 2.0), ("cosine", 2.0)], ids=["root mean square", "mean", "1 - cosine"]
)
def test_distances_are_those_of_the_critic(critic, expected):
    images = np.ones((3, 2, 4, 4), np.float32)
    images[1] = -1
    for whole in (False, True):
        found = _distances(images, critic, whole=whole)
        assert found[0] == pytest.approx([0, expected, 0], abs=1e-3)
        assert (found == found.T).all()


def test_features_are_averaged_in_cells():
    image = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    assert _averaged(image, 2).tolist() == [[13.5, 17.5, 45.5, 49.5]]
    assert _averaged(image[..., :1, :1], 2).tolist() == [[0.0]]


def test_channels_that_changed_their_places_are_still_the_same():
    image = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    assert _likeness(image, -image[[2, 0, 1]]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mpp": 1.0}, "trained at 1 µm/px, tiny-0 at 0.5"), ({"modalities": ("he", "dab")}, "takes other images")],
)
def test_models_that_are_no_like_models_are_not_compared(model, pair, change, message):
    if "modalities" in change:
        names = zip(model.card.modalities, change["modalities"], strict=True)
        change = {"modalities": tuple(card.model_copy(update={"modality": name}) for card, name in names)}
    other = replace(model, card=model.card.model_copy(update={"name": "other", **change}))
    with pytest.raises(ModelError, match=message):
        diagnose(model, [Part(pair, SMALL)], [other], **QUICK)


def test_what_the_card_says_was_learnt_from_is_left_out(model, pair):
    card = model.card
    slides = {"h": pair.fixed.digest, "d": pair.moving.digest}
    stranger = replace(
        pair, name="other", fixed=replace(pair.fixed, digest="1"), moving=replace(pair.moving, digest="2")
    )
    upper = card.model_copy(update={"data_sha256": slides, "training": {"region": "0 0 1 0.75"}})
    parts, sentence = unseen_parts(upper, [pair, stranger])
    assert [part.box for part in parts] == [Box(y0=192.0), WHOLE]
    assert "outside 0 0 1 0.75" in sentence
    assert "1 of 2 pairs" in sentence
    everything = card.model_copy(update={"data_sha256": slides})
    parts, sentence = unseen_parts(everything, [pair, stranger])
    assert [part.pair.name for part in parts] == ["other"]
    assert "without colon" in sentence
    parts, sentence = unseen_parts(everything, [pair])
    assert [part.box for part in parts] == [WHOLE]
    assert "flatters" in sentence
    parts, sentence = unseen_parts(card, [pair])
    assert [part.box for part in parts] == [WHOLE]
    assert "no slide that it learnt from is listed" in sentence
    _, sentence = unseen_parts(upper, [stranger])
    assert "learnt from none of them" in sentence


def test_who_asks_for_more_than_is_unseen_is_warned(model, pair):
    slides = {"h": pair.fixed.digest}
    upper = model.card.model_copy(update={"data_sha256": slides, "training": {"region": "0 0 1 0.75"}})
    warning = "Careful: tiny-0 learnt from 0 0 1 0.75 of 1 of these 1 pairs"
    parts, sentence = whole_parts(upper, [pair])
    assert [part.box for part in parts] == [WHOLE]
    assert warning in sentence
    assert "Careful" not in whole_parts(model.card, [pair])[1]
    assert warning in unseen_parts(upper, [pair], (0.0, 0.0, 1.0, 0.5))[1]
    assert "Careful" not in unseen_parts(upper, [pair], (0.0, 0.0, 1.0, 0.8))[1]


def test_a_region_that_is_given_counts_for_all(model, pair):
    (part,), sentence = unseen_parts(model.card, [pair], (0.0, 0.0, 0.5, 1.0))
    assert part.box == Box(x0=128.0)
    assert "outside 0 0 0.5 1" in sentence
    with pytest.raises(ConfigError, match="leaves nothing of the slides"):
        unseen_parts(model.card, [pair], (0.0, 0.0, 1.0, 1.0))
