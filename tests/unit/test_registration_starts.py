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
        (2.9, 1.4, "comir"),
        (2.9, 5.5, "comir"),  # in doubt, but raw images are not surer by far
        (2.9, 6.5, "raw"),
        (-0.3, 2.9, "comir"),
        (-0.3, 30.0, "raw"),
        (math.nan, 3.5, "raw"),
        (0.5, math.nan, "comir"),
    ],
)
def test_the_representations_unless_they_are_in_doubt_and_raw_images_surer_by_far(comir, raw, chosen):
    views = [COMIR, RAW]
    start = Start(Composite(), {}, {"comir": comir, "raw": raw})
    view, others = final_view(views, start, RegisterConfig(trust_z=4.0))
    assert view.name == chosen
    assert [view, *others] in (views, views[::-1])


def test_a_single_view_is_taken_whatever_it_says():
    assert final_view([RAW], Start(Composite(), {}, {"raw": math.nan}), RegisterConfig()) == (RAW, [])


class Compared(Starts):
    """Starts whose views say of each view's fit what is given; a fit's transform is the name of its view."""

    def __init__(self, nats, z):
        self._nats, self._z = nats, z

    def _likelihood(self, transform):
        return self._nats[transform]

    def significances(self, transform):
        return self._z[transform]


def told(comir, raw):
    return {"comir": comir, "raw": raw}


def fitted_in_full(start_z, z, nats):
    """Return the views that were fitted, and the full fit of a start of 80 and 20 nats."""
    start = Start(Composite((MOVE, MOVE)), told(80.0, 20.0), start_z)
    made = []

    def fit(view):
        made.append(view.name)
        return Fitted(view.name, (Attempt("as configured", "it crashed"), Attempt("by the preset")))

    return made, full_fit(Compared(nats, z), start, [COMIR, RAW], RegisterConfig(trust_z=4.0), fit)


KEPT = {"comir": told(84.0, 3.0), "raw": told(60.0, 22.0)}


@pytest.mark.parametrize(
    ("start_z", "comir_z", "raw_z", "chosen", "fits"),
    [
        # Beyond doubt: raw images are not asked, whatever they think of the fit.
        (told(9.0, 20.0), told(9.0, 15.0), None, "comir", ["comir"]),
        # In doubt: raw images have to be surer by far.
        (told(3.0, 2.0), told(3.0, 1.0), told(2.0, 5.9), "comir", ["comir", "raw"]),
        (told(3.0, 2.0), told(3.0, 1.0), told(2.0, 6.1), "raw", ["comir", "raw"]),
        (told(3.0, 2.0), told(3.0, 1.0), told(2.0, math.nan), "comir", ["comir", "raw"]),
        # Astray, by its own view or by both: to be surer is enough.
        (told(9.0, 9.0), told(4.0, 9.0), told(9.0, 4.5), "raw", ["comir", "raw"]),
        (told(9.0, 9.0), told(6.0, 2.0), told(9.0, 6.5), "raw", ["comir", "raw"]),
        (told(9.0, 9.0), told(6.0, 3.5), None, "comir", ["comir"]),
        (told(9.0, math.nan), told(6.0, 2.0), None, "comir", ["comir"]),
        (told(9.0, 9.0), told(math.nan, 9.0), told(9.0, 6.5), "raw", ["comir", "raw"]),
        # Raw images first, where they are surer by far from the start.
        (told(0.5, 9.0), None, told(0.5, 9.0), "raw", ["raw"]),
        (told(0.5, 9.0), told(8.0, 0.0), told(0.5, 4.0), "comir", ["raw", "comir"]),
    ],
)
def test_the_other_view_is_fitted_where_the_first_is_in_doubt_or_astray(start_z, comir_z, raw_z, chosen, fits):
    made, final = fitted_in_full(start_z, {"comir": comir_z, "raw": raw_z}, KEPT)
    assert made == fits
    assert final.view.name == final.fitted.transform == chosen
    assert [view.name for view in final.others] == [{"comir": "raw", "raw": "comir"}[chosen]]
    assert final.set_aside == (chosen != fits[0])


@pytest.mark.parametrize(
    ("comir_z", "comir_nats", "raw_nats", "reason"),
    [
        (told(8.9, 9.0), 60.0, None, "less likely than the start"),
        (told(4.0, 9.0), 84.0, 12.0, "less significant on held-out tiles than the start"),
        (told(math.nan, 9.0), 84.0, 12.0, "less significant on held-out tiles than the start"),
    ],
)
def test_the_start_stays_where_no_fit_is_to_be_believed(comir_z, comir_nats, raw_nats, reason):
    nats = {"comir": told(comir_nats, 20.0), "raw": told(80.0, raw_nats)}
    _, final = fitted_in_full(told(9.0, 9.0), {"comir": comir_z, "raw": told(9.0, 9.0)}, nats)
    assert (final.view.name, final.set_aside) == ("comir", False)
    (joined,) = final.fitted.transform.parts
    assert np.array_equal(joined.offset, 2 * MOVE.offset)
    assert final.fitted.attempts == (
        Attempt("as configured", "it crashed"),
        Attempt("by the preset", reason),
        Attempt("not at all: the start"),
    )


def test_a_fit_that_is_less_likely_is_believed_where_it_is_more_significant():
    nats = {"comir": told(60.0, 20.0)}
    _, final = fitted_in_full(told(9.0, 9.0), {"comir": told(9.1, 9.0)}, nats)
    assert final.fitted.transform == "comir"


def test_of_many_nats_a_tenth_means_nothing():
    start = Start(Composite(), told(900.0, 400.0), {})
    found = Compared({"comir": told(820.0, 350.0)}, {})
    assert found.keeps(start, "comir", COMIR)
    assert not found.keeps(start, "comir", RAW)


def test_a_view_keeps_what_is_as_likely_as_a_start():
    view, _ = _views()
    starts = Starts([view], RegisterConfig())
    (start,) = starts.found(Composite())
    near, far, beyond = (Composite((Affine(np.eye(2), np.full(2, shift)),)) for shift in (0.05, 12.0, 1000.0))
    assert starts.keeps(start, near, view)
    assert not starts.keeps(start, far, view)
    assert not starts.keeps(start, beyond, view)
    assert starts.keeps(replace(start, likelihood={"comir": math.nan}), far, view)  # it could not tell before


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


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_scale_at_which_nothing_overlaps_does_not_end_the_search_of_others(number, monkeypatch):
    asked = []

    def search_but_once(_views, _config):
        asked.append(len(asked))
        if asked[-1] == number:
            raise RegistrationError("the images overlap too little at every rotation")
        return (Candidate(Affine(np.eye(2), np.zeros(2)), 0.0, False, 9.0, 5.0),)  # noqa: FBT003

    monkeypatch.setattr("comir_batch.registration.starts.search", search_but_once)
    starts = Starts(_views(), RegisterConfig(scales=(0.8, 1.0, 1.25)))
    assert starts.found()
    assert asked == [0, 1, 2]


def test_where_nothing_overlaps_at_any_scale_it_is_told(monkeypatch):
    def search_in_vain(_views, _config):
        raise RegistrationError("the images overlap too little at every rotation")

    monkeypatch.setattr("comir_batch.registration.starts.search", search_in_vain)
    with pytest.raises(RegistrationError, match="overlap too little"):
        Starts(_views(), RegisterConfig(scales=(0.8, 1.0, 1.25))).found()


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
