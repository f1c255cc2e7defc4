"""Starts settle and are compared; which view gets the full fit follows from what is said of the best one."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.fit import Attempt, Fitted
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.search import Candidate
from comir_batch.registration.starts import Start, Starts, final_view, full_fit, margin

IMAGE = RegistrationImage(np.zeros((8, 8), np.float32), np.ones((8, 8), dtype=bool), Grid(8, 8, 1.0, 1.0))
MOVE = Affine(np.eye(2), np.array([3.0, 1.0]))
COMIR, RAW = View("comir", "ncc", IMAGE, IMAGE), View("raw", "mi", IMAGE, IMAGE)


@pytest.mark.parametrize(
    ("comir", "raw", "chosen"),
    [
        (20.0, 90.0, "comir"),  # beyond doubt, and finer
        (2.9, 1.4, "comir"),  # neither is: the better
        (1.4, 2.9, "raw"),
        (-0.3, 30.0, "raw"),
        (math.nan, 0.5, "raw"),
        (0.5, math.nan, "comir"),
    ],
)
def test_the_representations_when_beyond_doubt_else_the_more_significant(comir, raw, chosen):
    views = [COMIR, RAW]
    start = Start(Composite(), {}, {"comir": comir, "raw": raw})
    view, others = final_view(views, start, RegisterConfig(trust_z=4.0))
    assert view.name == chosen
    assert [view, *others] in (views, views[::-1])


def test_a_single_view_is_taken_whatever_it_says():
    assert final_view([RAW], Start(Composite(), {}, {"raw": math.nan}), RegisterConfig()) == (RAW, [])


class Compared(Starts):
    """Starts whose likelihoods of what each view's fit finds are given; a fit's transform is the name of its view."""

    def __init__(self, found, z=20.0, raw_z=9.0):
        self._found, self._z = found, {"comir": z, "raw": raw_z}

    def _likelihood(self, transform):
        return self._found[transform]

    def significances(self, transform):
        assert transform == "comir"  # the first fit
        return self._z


@pytest.mark.parametrize(
    ("comir", "raw", "raw_z", "chosen", "fits"),
    [
        ({"comir": 84.0, "raw": 18.0}, None, 30.0, "comir", ["comir"]),
        ({"comir": 80.0, "raw": 16.5}, None, 30.0, "comir", ["comir"]),  # as much is by chance
        ({"comir": 80.0, "raw": 12.0}, {"comir": 78.0, "raw": 22.0}, 30.0, "raw", ["comir", "raw"]),
        (
            {"comir": 99.0, "raw": 12.0},
            {"comir": 65.0, "raw": 20.0},
            30.0,
            "raw",
            ["comir", "raw"],
        ),  # a gain
        (
            {"comir": 80.0, "raw": 12.0},
            {"comir": 78.0, "raw": 10.0},
            30.0,
            "comir",
            ["comir", "raw"],
        ),  # loses
        ({"comir": 80.0, "raw": 12.0}, None, 9.0, "comir", ["comir"]),  # the less significant has no say
        ({"comir": 80.0, "raw": math.nan}, {"comir": 72.0, "raw": 20.0}, 30.0, "raw", ["comir", "raw"]),
    ],
)
def test_the_more_significant_view_is_fitted_where_the_first_fit_makes_it_less_likely(comir, raw, raw_z, chosen, fits):
    start = Start(Composite(), {"comir": 80.0, "raw": 20.0}, {"comir": 20.0, "raw": raw_z})
    made = []

    def fit(view):
        made.append(view.name)
        return Fitted(view.name, (Attempt("as configured"),))

    final = full_fit(Compared({"comir": comir, "raw": raw}, raw_z=raw_z), start, [COMIR, RAW], RegisterConfig(), fit)
    assert made == fits
    assert final.view.name == final.fitted.transform == chosen
    assert [view.name for view in final.others] == [{"comir": "raw", "raw": "comir"}[chosen]]
    assert final.set_aside == (chosen == "raw")


@pytest.mark.parametrize("raw_z", [9.0, 30.0])
def test_the_start_stays_where_fits_lose_their_own_views_nats(raw_z):
    start = Start(Composite((MOVE, MOVE)), {"comir": 80.0, "raw": 20.0}, {"comir": 20.0, "raw": raw_z})
    found = Compared({"comir": {"comir": 65.0, "raw": 8.0}, "raw": {"comir": 65.0, "raw": 12.0}})
    tried = (Attempt("as configured", "it crashed"), Attempt("by the preset"))
    final = full_fit(found, start, [COMIR, RAW], RegisterConfig(), lambda view: Fitted(view.name, tried))
    assert (final.view.name, final.set_aside) == ("comir", False)
    (joined,) = final.fitted.transform.parts
    assert np.array_equal(joined.offset, 2 * MOVE.offset)
    assert final.fitted.attempts == (
        Attempt("as configured", "it crashed"),
        Attempt("by the preset", "less likely than the start by both views"),
        Attempt("not at all: the start"),
    )


@pytest.mark.parametrize(
    ("z", "raw_z", "raw", "chosen", "last"),
    [
        (11.0, 9.0, {"comir": 70.0, "raw": 130.0}, "comir", "as configured"),
        (9.0, 9.0, {"comir": 70.0, "raw": 130.0}, "raw", "as configured"),
        (9.0, 9.0, {"comir": 70.0, "raw": 40.0}, "comir", "not at all: the start"),
        (11.0, 0.2, {"comir": 70.0, "raw": 130.0}, "raw", "as configured"),
        (16.0, 0.2, {"comir": 70.0, "raw": 130.0}, "comir", "as configured"),
        (11.0, math.nan, {"comir": 70.0, "raw": 130.0}, "comir", "as configured"),
        (math.nan, 9.0, {"comir": 70.0, "raw": 130.0}, "comir", "as configured"),
    ],
)
def test_a_fit_that_loses_half_of_what_its_view_or_both_told_has_gone_astray(z, raw_z, raw, chosen, last):
    start = Start(Composite((MOVE,)), {"comir": 80.0, "raw": 130.0}, {"comir": 20.0, "raw": 9.0})
    found = Compared({"comir": {"comir": 90.0, "raw": 23.0}, "raw": raw}, z, raw_z)
    fitted = (Attempt("as configured"),)
    final = full_fit(found, start, [COMIR, RAW], RegisterConfig(), lambda view: Fitted(view.name, fitted))
    assert (final.view.name, final.set_aside) == (chosen, chosen == "raw")
    assert final.fitted.attempts[-1].name == last


def test_of_many_nats_a_tenth_means_nothing():
    start = Start(Composite(), {"comir": 900.0, "raw": 400.0}, {"comir": 20.0, "raw": 9.0})
    found = Compared({"comir": {"comir": 880.0, "raw": 370.0}})
    final = full_fit(found, start, [COMIR, RAW], RegisterConfig(), lambda view: Fitted(view.name, ()))
    assert not final.set_aside


def test_a_view_stands_for_what_is_as_likely_as_a_start():
    view, _ = _views()
    starts = Starts([view], RegisterConfig())
    (start,) = starts.found(Composite())
    near, far, beyond = (Composite((Affine(np.eye(2), np.full(2, shift)),)) for shift in (0.05, 12.0, 1000.0))
    assert starts.stand_for(start, near, view)
    assert not starts.stand_for(start, far, view)
    assert not starts.stand_for(start, beyond, view)
    assert starts.stand_for(replace(start, likelihood={"comir": math.nan}), far, view)  # it could not tell before


@pytest.mark.parametrize(
    ("nats", "total"),
    [({"comir": 12.0, "raw": 3.0}, 15.0), ({"comir": math.nan, "raw": 2.0}, 2.0), ({"comir": math.nan}, -math.inf)],
)
def test_likelihoods_add_up_over_the_views(nats, total):
    assert Start(Composite(), nats, {}).total == total


def _views():
    generator = np.random.default_rng(2)
    pixels = cv2.GaussianBlur(generator.normal(size=(128, 128)).astype(np.float32), (0, 0), 3)
    image = RegistrationImage(pixels, np.ones(pixels.shape, bool), Grid(128, 128, 1.0, 1.0))
    return [View("comir", "ncc", image, image), View("raw", "mi", image, image)]


def test_of_the_places_that_the_search_finds_the_likeliest_comes_first_once_it_has_settled(monkeypatch):
    places = [Affine(np.eye(2), np.array([x, 0.0])) for x in (40.0, 20.0, 1.2)]
    found = tuple(Candidate(place, 0.0, False, 9.0, 5.0) for place in places)  # noqa: FBT003
    monkeypatch.setattr("comir_batch.registration.starts.search", lambda _views, _config: found)
    best, *others = Starts(_views(), RegisterConfig()).found()
    assert np.array_equal(best.candidate.transform.offset, places[2].offset)
    assert np.abs(best.transform.map([[64.0, 64.0]]) - 64.0).max() < 0.3
    assert sum(best.likelihood.values()) > max(sum(other.likelihood.values()) for other in others)
    assert not best.mirrored
    assert min(best.angle, 360 - best.angle) < 0.3


@pytest.mark.parametrize("scale", [0.83, 1.24])
def test_tissue_of_another_size_than_the_pixel_sizes_say_is_found_where_scales_are_searched(scale):
    views = [replace(view, moving=view.moving.enlarged(scale)) for view in _views()]
    as_told, searched = (
        Starts(views, RegisterConfig(search_side=96, angles=24, candidates=4, scales=scales)).found()[0]
        for scales in ((1.0,), (0.8, 1.0, 1.25))
    )
    corners = np.array([[0.0, 0.0], [128.0, 0.0], [0.0, 128.0]])
    far, near = (np.abs(start.transform.map(corners) - scale * corners).max() for start in (as_told, searched))
    assert near < 1.0
    assert far > 5.0
    assert sum(searched.likelihood.values()) > sum(as_told.likelihood.values()) + 20


def test_a_start_of_the_users_settles_too():
    middle = np.array([64.0, 64.0])
    turned = Affine.about(_rotation(2.0), middle, [1.0, -1.0])
    (start,) = Starts(_views(), RegisterConfig()).found(Composite((turned,)))
    assert start.candidate is None
    corners = np.array([[0.0, 0.0], [128.0, 0.0], [0.0, 128.0]])
    assert np.abs(start.transform.map(corners) - corners).max() < 0.5 < np.abs(turned.map(corners) - corners).max()


def test_angle_and_mirroring_of_a_start_are_those_of_the_search():
    mirrored = Affine(_rotation(-80.0) @ np.diag([-1.0, 1.0]), np.zeros(2))
    start = Start(Composite((mirrored,)), {}, {})
    assert start.mirrored
    assert start.angle == pytest.approx(280.0)


def test_a_start_that_lays_nothing_on_the_tissue_is_an_error():
    beyond = Composite((Affine(np.eye(2), np.array([1000.0, 0.0])),))
    with pytest.raises(RegistrationError, match="too little of the tissue overlaps"):
        Starts(_views(), RegisterConfig()).found(beyond)


def _rotation(degrees):
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def test_places_that_settle_where_a_likelier_one_has_are_one(monkeypatch):
    places = [Affine(np.eye(2), np.array([x, 0.0])) for x in (0.8, 1.6, 60.0)]
    found = tuple(Candidate(place, 0.0, False, 9.0, 5.0) for place in places)  # noqa: FBT003
    monkeypatch.setattr("comir_batch.registration.starts.search", lambda _views, _config: found)
    starts = Starts(_views(), RegisterConfig()).found()
    assert len(starts) == 2
    assert margin(starts) == pytest.approx(starts[0].total - starts[1].total)
    assert margin(starts) > 50


def test_the_margin_is_over_chance_where_there_is_one_place_and_unknown_where_the_user_gave_it():
    found = Start(Composite(), {"raw": 12.0}, {}, Candidate(Affine(np.eye(2), np.zeros(2)), 0.0, False, 9.0, 5.0))  # noqa: FBT003
    assert margin([found]) == 12.0
    assert margin([found, Start(Composite(), {"raw": math.nan}, {})]) == 12.0
    assert margin([Start(Composite(), {"raw": 12.0}, {})]) is None
    assert margin([replace(found, candidate=replace(found.candidate, by="features"))]) is None
