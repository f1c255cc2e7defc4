"""The search finds a known turn, mirroring and shift within one and a half of its pixels."""

import cv2
import numpy as np
import pytest

from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.registration.coarse import coarsened, common_mpp
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.scores import Correlation, Information, Transforms
from comir_batch.registration.search import _NARROW, _WIDE, _same, _turns, search
from comir_batch.registration.turntable import Peak, Turntable

CONFIG = RegisterConfig(search_side=128, angles=72, candidates=3)
GRID = Grid(220, 260, 2.0, 2.0, 50.0, -20.0)


def _pair(motion, metric):
    generator = np.random.default_rng(1)
    pixels = cv2.GaussianBlur(generator.normal(size=GRID.shape).astype(np.float32), (0, 0), 5)
    mask = cv2.ellipse(np.zeros(GRID.shape, np.uint8), (105, 130), (90, 120), 10, 0, 360, 1, -1).astype(bool)
    (moved,), grid, truth = move(pixels[None], GRID, motion)
    moved_mask = move(mask.astype(np.float32)[None], GRID, motion)[0][0] > 0.5
    noise = cv2.GaussianBlur(generator.normal(size=moved.shape).astype(np.float32), (0, 0), 3)
    moved = moved / pixels.std() + noise / noise.std()
    if metric == "mi":
        moved = np.abs(moved)  # no longer correlated
    view = View("raw", metric, RegistrationImage(pixels, mask, GRID), RegistrationImage(moved, moved_mask, grid))
    return view, truth, GRID.to_um(np.argwhere(mask)[::50, ::-1])


@pytest.mark.parametrize("metric", ["ncc", "mi"])
@pytest.mark.parametrize(("angle", "mirrored"), [(25.0, False), (115.0, True), (180.0, False)])
def test_a_known_motion_is_found(metric, angle, mirrored):
    view, truth, points = _pair(Motion(angle, (60.0, -40.0), mirrored, amplitude_um=1e-6), metric)
    best, *_ = search([view], CONFIG)
    error = np.linalg.norm(best.transform.map(points) - truth.map(points), axis=1)
    assert best.mirrored == mirrored
    assert best.angle == pytest.approx(angle, abs=1.0)
    assert error.max() < 1.5 * common_mpp(view.fixed, view.moving, CONFIG.search_side)
    assert best.z > 7


def test_an_angle_between_two_steps_is_found_to_a_degree():
    view, _, _ = _pair(Motion(117.0, amplitude_um=1e-6), "ncc")
    assert search([view], CONFIG)[0].angle == pytest.approx(117.0, abs=1.0)


@pytest.mark.parametrize("metric", ["ncc", "mi"])
def test_upright_images_score_as_turned_ones_do(metric):
    """An angle that tells what chance gives must not take the right place at that angle for chance."""
    scores = {}
    for angle in (0.0, 35.0):  # the first is such an angle at both levels, the second is near none
        view, truth, points = _pair(Motion(angle, (6.0, -4.0), amplitude_um=1e-6), metric)
        best, *_ = search([view], CONFIG)
        assert np.linalg.norm(best.transform.map(points) - truth.map(points), axis=1).max() < 5
        scores[angle] = best.score
    assert scores[0.0] > 0.6 * scores[35.0]


@pytest.mark.parametrize(
    ("shift", "angle", "mirrored", "narrow", "wide"),
    [
        ((13, 10), 3.0, False, True, True),
        ((18, 10), 3.0, False, False, True),  # nothing that turns moves as far
        ((16, 10), 350.0, False, True, True),
        ((40, 10), 350.0, False, False, False),
        ((10, 10), 20.0, False, False, False),
        ((10, 10), 0.0, True, False, False),
    ],
)
def test_peaks_are_one_where_one_lies_on_the_slope_of_the_other(shift, angle, mirrored, narrow, wide):
    one, other = Peak(9.0, (10, 10), 0.0, mirrored=False), Peak(8.0, shift, angle, mirrored=mirrored)
    assert _same(one, other, 96, _NARROW) == narrow
    assert _same(one, other, 96, _WIDE) == wide


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_shift_of_a_peaks_transform_is_the_peaks(mirrored):
    view, _, _ = _pair(Motion(25.0), "ncc")
    fixed, moving = (coarsened(image, 8.0) for image in (view.fixed, view.moving))
    table, peak = Turntable(moving), Peak(1.0, (-7, 23), 131.0, mirrored=mirrored)
    assert table.shift(table.transform(peak, fixed.grid), fixed.grid) == peak.shift


def test_the_best_shift_near_another_is_found_across_the_border():
    view, _, _ = _pair(Motion(25.0), "ncc")
    table = Turntable(coarsened(view.moving, 8.0))
    scores = np.zeros((200, 220), np.float32)
    scores[20, 50], scores[198, 1] = 9.0, 5.0
    assert table.peak(scores, 0.0, mirrored=False).shift == (50, 20)
    assert table.peak_near(scores, 30.0, (-1, 0), 4, mirrored=True) == Peak(5.0, (1, -2), 30.0, mirrored=True)


def test_candidates_are_distinct_and_best_first():
    view, _, _ = _pair(Motion(25.0, amplitude_um=1e-6), "ncc")
    candidates = search([view], CONFIG)
    assert 2 <= len(candidates) <= 3
    assert [c.score for c in candidates] == sorted((c.score for c in candidates), reverse=True)
    assert candidates[0].z > 2 * candidates[1].z


def test_unrelated_images_are_not_significant():
    one, _, _ = _pair(Motion(25.0), "ncc")
    noise = np.random.default_rng(3).normal(size=one.moving.grid.shape).astype(np.float32)
    unrelated = RegistrationImage(cv2.GaussianBlur(noise, (0, 0), 5), one.moving.mask, one.moving.grid)
    best, *_ = search([View("raw", "ncc", one.fixed, unrelated)], CONFIG)
    assert best.z < 6


def test_the_search_repeats():
    view, _, _ = _pair(Motion(25.0), "mi")
    first, second = search([view], CONFIG), search([view], CONFIG)
    assert [c.transform.to_dict() for c in first] == [c.transform.to_dict() for c in second]


def test_too_little_overlap_is_an_error():
    view, _, _ = _pair(Motion(25.0), "ncc")
    bar = np.zeros_like(view.moving.mask)
    bar[:, 100:103] = True
    dots = np.zeros_like(view.fixed.mask)
    dots[100:200:20, 80:150:20] = True
    with pytest.raises(RegistrationError, match="min_overlap"):
        search(
            [View("raw", "ncc", view.fixed.masked(dots), view.moving.masked(bar))],
            RegisterConfig(search_side=512, angles=8, min_overlap=0.9),
        )


@pytest.mark.parametrize("kind", [Correlation, Information])
def test_shifts_that_wrap_around_do_not_mix(kind):
    view, _, _ = _pair(Motion(25.0), "ncc")
    fixed, moving = (coarsened(image, 8.0) for image in (view.fixed, view.moving))
    table, least = Turntable(moving), 0.4 * np.count_nonzero(fixed.mask)
    small = table.transform_shape(fixed.mask, least)
    large = tuple(side + table.side for side in fixed.grid.shape)
    assert max(small) < min(large)
    few, all_of_them = (kind(fixed, moving, Transforms(shape), least) for shape in (small, large))
    for angle in (0.0, 45.0, 200.0):
        one, other = table.best(few, angle), table.best(all_of_them, angle)
        assert one.shift == other.shift
        assert one.score == pytest.approx(other.score, abs=1e-3)
        pixels, mask = table.turned(angle, mirrored=False)
        finite = [np.isfinite(scorer.scores(pixels, mask, scorer.overlap(mask))).sum() for scorer in (few, all_of_them)]
        assert abs(finite[0] - finite[1]) <= 2  # counts at the limit, to rounding


@pytest.mark.parametrize(("step", "turns"), [(0.5, 0), (1.0, 0), (1.5, 1), (2.0, 1), (3.0, 1), (5.0, 2), (45.0, 22)])
def test_turns_fill_a_step_by_a_degree_at_most(step, turns):
    about = sorted([0.0, *_turns(step)])
    assert len(about) == 2 * turns + 1
    assert np.allclose(np.diff(about), step / len(about))
    assert step / len(about) <= 1.0


def test_more_places_are_returned_where_more_are_asked_for():
    view, _, _ = _pair(Motion(25.0, amplitude_um=1e-6), "ncc")
    few, many = (search([view], CONFIG.model_copy(update={"candidates": number})) for number in (3, 15))
    assert 2 <= len(few) <= 3 < len(many) <= 15


def test_views_find_together_what_each_of_them_overlooks():
    """Two views of the same motion, in noise that hides it from each of them."""
    motion = Motion(115.0, (60.0, -40.0), amplitude_um=1e-6)
    view, truth, points = _pair(motion, "ncc")
    generator = np.random.default_rng(28)

    def noisy(name):
        noise = cv2.GaussianBlur(generator.normal(size=view.moving.grid.shape).astype(np.float32), (0, 0), 5)
        pixels = view.moving.pixels + np.float32(3.5) * noise / noise.std()
        return View(name, "ncc", view.fixed, RegistrationImage(pixels, view.moving.mask, view.moving.grid))

    def error(candidate):
        return np.linalg.norm(candidate.transform.map(points) - truth.map(points), axis=1).mean()

    views = [noisy("comir"), noisy("raw")]
    together, *_ = search(views, CONFIG)
    assert error(together) < 2 * common_mpp(view.fixed, view.moving, CONFIG.search_side)
    alone = [search([each], CONFIG)[0] for each in views]
    assert max(map(error, alone)) > 100
