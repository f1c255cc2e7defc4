"""What the pairing benchmark counts, and what confidences are fitted to."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from comir_batch.bench.pairing import Margins, Pairing, PairingRequest, _write, counted, fitted, margins, reliability
from comir_batch.core.transform import Affine
from comir_batch.retrieval.margins import SURE, confidence_at
from comir_batch.retrieval.pairing import Compared, proposed
from comir_batch.retrieval.proposals import Proposal, Status

PARTNERS = {"f1": "m1", "f2": "m2", "f3": "m3"}


def slide(name):
    return SimpleNamespace(name=name)


def proposal(fixed, moving, status):
    return Proposal(slide(fixed) if fixed else None, slide(moving) if moving else None, status)


def place(name, score):
    return SimpleNamespace(slide=slide(name), score=score, verified=True, transform=Affine.identity())


def test_pairs_and_those_that_are_alone_are_counted_by_what_was_said():
    said = [
        proposal("f1", "m1", Status.SURE),
        proposal("f2", "m9", Status.SURE),
        proposal("f3", "m3", Status.AMBIGUOUS),
        proposal("f9", None, Status.NO_PARTNER),
        proposal(None, "m2", Status.NO_PARTNER),
    ]
    assert counted(said, PARTNERS) == [("sure", 4, 2), ("ambiguous", 2, 2), ("no partner", 2, 1)]


@pytest.mark.parametrize("searched_is_fixed", [True, False])
def test_margins_are_those_that_pair_takes_with_the_partner_and_without_it(searched_is_fixed):
    query, partner, other = ("m1", "f1", "f2") if searched_is_fixed else ("f1", "m1", "m2")
    chance = [place(other, score) for score in (20.0, 16.0, 15.0, 14.0, 13.0, 12.0)]
    found = [place(partner, 30.0), place(partner, 25.0), *chance]
    compared = Compared(
        [slide(query), slide("alone")], [slide(partner), slide(other)], [found, chance], searched_is_fixed
    )
    assert margins(compared, PARTNERS) == Margins((1.2,), (1.25,))
    (pair,) = (each for each in proposed(compared) if each.is_pair)
    assert pair.margin == 1.2


def test_a_partner_that_was_not_found_is_wrong_with_it_and_without_it():
    chance = [place("f2", score) for score in (20.0, 16.0, 15.0, 14.0, 13.0, 12.0)]
    assert margins(Compared([slide("m1")], [], [chance], searched_is_fixed=True), PARTNERS) == Margins((), (1.25, 1.25))


def test_a_fit_finds_the_odds_that_margins_were_drawn_with():
    generator, even, steepness = np.random.default_rng(0), 1.4, 12.0
    drawn = np.exp(generator.uniform(np.log(1.0), np.log(2.0), 4000))
    right = generator.uniform(size=drawn.size) < 1 / (1 + (even / drawn) ** steepness)
    found = fitted(Margins(tuple(drawn[right]), tuple(drawn[~right])))
    assert found == pytest.approx((even, steepness), rel=0.1)


def test_a_fit_is_finite_where_right_and_wrong_do_not_meet():
    even, steepness = fitted(Margins((2.0, 2.5, 3.0), (1.0, 1.1, 1.2)))
    assert 1.2 < even < 2.0
    assert 1 < steepness < 100


def test_confidences_are_held_against_what_was_right():
    assert confidence_at(SURE) == 0.5
    rows = reliability(Margins((2.0, 2.1, 1.01), (1.02, 1.3 * SURE)))
    assert [(name, count, share) for name, count, _, share in rows] == [
        ("0-0.1", 2, 0.5),
        ("0.9-0.99", 1, 0.0),
        ("0.99-1", 2, 1.0),
    ]
    assert all(0 <= mean <= 1 for _, _, mean, _ in rows)


def test_where_no_partner_is_found_nothing_is_fitted(tmp_path):
    request = PairingRequest(None, tmp_path, tmp_path, None)
    _write(request, Pairing([("no partner", 4, 0)], Margins((), ())), "Measured nowhere.")
    assert json.loads((tmp_path / "pairing.json").read_text(encoding="utf-8"))["fitted"] is None
    assert "no odds were fitted" in (tmp_path / "pairing.md").read_text(encoding="utf-8")
