"""Which view gets the full fit follows from what the held-out tiles say of the best start."""

import math

import cv2
import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.comparison import Comparison
from comir_batch.registration.fit import Fitted
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.search import Candidate
from comir_batch.registration.starts import CandidateReport, Start, Starts, final_view, full_fit, likeliest

IMAGE = RegistrationImage(np.zeros((8, 8), np.float32), np.ones((8, 8), dtype=bool), Grid(8, 8, 1.0, 1.0))
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
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, {}, {"comir": comir, "raw": raw}, 0.1)  # noqa: FBT003
    views = [COMIR, RAW]
    view, others = final_view(views, Start(RAW, Composite(), None, report), RegisterConfig(trust_z=4.0))
    assert view.name == chosen
    assert [view, *others] in (views, views[::-1])


def test_a_single_view_is_taken_whatever_it_says():
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, {}, {"raw": math.nan}, 0.1)  # noqa: FBT003
    assert final_view([RAW], Start(RAW, Composite(), None, report), RegisterConfig()) == (RAW, [])


@pytest.mark.parametrize(
    ("nats", "total"),
    [({"comir": 12.0, "raw": -3.0}, 9.0), ({"comir": math.nan, "raw": 2.0}, 2.0), ({"comir": math.nan}, -math.inf)],
)
def test_likelihoods_add_up_over_the_views(nats, total):
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, nats, dict.fromkeys(nats, 50.0), 0.1)  # noqa: FBT003
    assert Start(RAW, Composite(), None, report).total == total


def test_the_right_start_of_a_small_field_is_the_likeliest_where_held_out_tiles_are_too_few_to_tell():
    """A field of 192 pixels has sixteen tiles; three are held out."""
    found = []
    for seed in range(6):
        random = np.random.default_rng(seed)
        tissue, noise = (
            cv2.GaussianBlur(random.normal(size=(192, 192)).astype(np.float32), (0, 0), 3) for _ in range(2)
        )
        grid, inside = Grid(192, 192, 1.0, 1.0), np.ones((192, 192), dtype=bool)
        moving = RegistrationImage(tissue / tissue.std() + noise / noise.std(), inside, grid)
        view = View("raw", "ncc", RegistrationImage(tissue, inside, grid), moving)
        compared = Comparison(view)
        truth = compared.likelihood(Composite())
        wrong = [Composite((Affine(np.eye(2), random.uniform(20, 80, 2)),)) for _ in range(20)]
        found.append(truth > max(compared.likelihood(each) for each in wrong) + 20)
        assert math.isnan(compared.likelihood(Composite((Affine(np.eye(2), np.array([180.0, 0.0])),))))
    assert all(found)


def test_structure_in_uneven_light_is_not_taken_for_a_few_samples():
    """Slow changes of the light correlate over most of an image, and there are hardly any independent samples of it."""
    random = np.random.default_rng(0)
    grid, inside = Grid(192, 192, 1.0, 1.0), np.ones((192, 192), dtype=bool)
    fine, light = (
        cv2.GaussianBlur(random.normal(size=(192, 192)).astype(np.float32), (0, 0), sigma) for sigma in (2, 60)
    )
    fixed = fine / fine.std() + light / light.std()
    moving = np.abs(fine / fine.std()) + np.roll(light, 96, axis=1) / light.std()
    compared = Comparison(View("raw", "mi", *(RegistrationImage(each, inside, grid) for each in (fixed, moving))))
    wrong = [Composite((Affine(np.eye(2), random.uniform(20, 80, 2)),)) for _ in range(20)]
    assert compared.likelihood(Composite()) > max(compared.likelihood(each) for each in wrong) + 10


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_what_chance_explains_as_well_has_no_nats(metric):
    random = np.random.default_rng(0)
    grid, inside = Grid(128, 128, 1.0, 1.0), np.ones((128, 128), dtype=bool)
    images = (
        RegistrationImage(cv2.GaussianBlur(random.normal(size=(128, 128)).astype(np.float32), (0, 0), 3), inside, grid)
        for _ in range(2)
    )
    compared = Comparison(View("raw", metric, *images))
    shifts = [Composite((Affine(np.eye(2), random.uniform(-30, 30, 2)),)) for _ in range(40)]
    nats = np.array([compared.likelihood(each) for each in shifts])
    assert (nats >= 0).all()
    assert np.median(nats) < 1.5
    assert compared.gain(shifts[0], shifts[0]) == 0.0


class Compared:
    """Stands in for `Starts`: what each fit takes from the other view."""

    def __init__(self, lost):
        self._lost = lost

    def lost(self, _start, transform, view):
        return self._lost[transform, view.name]


@pytest.mark.parametrize(
    ("lost", "chosen", "fits"),
    [
        ({("comir", "raw"): 0.0}, "comir", ["comir"]),
        ({("comir", "raw"): 0.05}, "comir", ["comir"]),
        ({("comir", "raw"): 0.4, ("raw", "comir"): 0.0}, "raw", ["comir", "raw"]),
        ({("comir", "raw"): 0.4, ("raw", "comir"): 0.6}, "comir", ["comir", "raw"]),
    ],
)
def test_the_other_view_is_fitted_where_it_speaks_against_the_first_fit(lost, chosen, fits):
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, {}, {"comir": 20.0, "raw": 9.0}, 0.1)  # noqa: FBT003
    made = []

    def fit(view):
        made.append(view.name)
        return Fitted(view.name, ())

    final = full_fit(Compared(lost), Start(RAW, Composite(), None, report), [COMIR, RAW], RegisterConfig(), fit)
    assert made == fits
    assert final.view.name == final.fitted.transform == chosen
    assert [view.name for view in final.others] == [{"comir": "raw", "raw": "comir"}[chosen]]
    assert final.set_aside == (chosen == "raw")


def test_a_view_loses_where_a_fit_leaves_what_it_stands_for(tmp_path):
    random = np.random.default_rng(0)
    grid, inside = Grid(256, 256, 1.0, 1.0), np.ones((256, 256), dtype=bool)
    tissue = RegistrationImage(
        cv2.GaussianBlur(random.normal(size=(256, 256)).astype(np.float32), (0, 0), 4), inside, grid
    )
    view = View("raw", "ncc", tissue, tissue)
    starts = Starts([view], RegisterConfig(), tmp_path)
    nats = {"raw": Comparison(view).likelihood(Composite())}
    start = Start(view, Composite(), None, CandidateReport("raw", 0.0, False, 1.0, 5.0, nats, {}, 0.1))  # noqa: FBT003
    near, far = (Composite((Affine(np.eye(2), np.full(2, shift)),)) for shift in (0.01, 12.0))
    assert starts.lost(start, near, view) < 0.3
    assert starts.lost(start, far, view) > 0.9
    assert starts.lost(Start(view, Composite()), far, view) == 0.0
    beyond = Composite((Affine(np.eye(2), np.full(2, 1000.0)),))
    assert starts.lost(start, beyond, view) == 1.0


@pytest.mark.parametrize(("raw_nats", "chosen"), [(32.0, "comir"), (40.0, "raw")])
def test_of_refinements_of_one_place_that_are_about_as_likely_the_one_for_the_full_fit_is_taken(raw_nats, chosen):
    def start(view, nats):
        held_out = {"comir": 9.0, "raw": 1.0}
        report = CandidateReport(view.name, 0.0, False, 1.0, 5.0, {"raw": nats}, held_out, 0.1)  # noqa: FBT003
        return Start(view, Composite(), None, report)

    refined = [start(COMIR, 31.0), start(RAW, raw_nats)]
    assert likeliest([COMIR, RAW], refined, RegisterConfig()).view.name == chosen


def test_the_starts_are_the_likeliest_places_once_for_each_view(tmp_path, monkeypatch):
    generator = np.random.default_rng(2)
    pixels = cv2.GaussianBlur(generator.normal(size=(128, 128)).astype(np.float32), (0, 0), 3)
    image = RegistrationImage(pixels, np.ones(pixels.shape, bool), Grid(128, 128, 1.0, 1.0))
    views = [View("comir", "ncc", image, image), View("raw", "mi", image, image)]
    places = [Affine(np.eye(2), np.array([x, 0.0])) for x in (40.0, 20.0, 0.0)]
    found = tuple(Candidate(place, 0.0, False, 9.0, 5.0) for place in places)  # noqa: FBT003
    monkeypatch.setattr("comir_batch.registration.starts.search", lambda _views, _config: found)
    starts = Starts(views, RegisterConfig(candidates=1), tmp_path).searched()
    assert [(start.view.name, start.candidate) for start in starts] == [("comir", found[2]), ("raw", found[2])]
