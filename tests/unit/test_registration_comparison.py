"""Likelihoods of alignments: right ones stand out, and what chance explains as well has none."""

import math

import cv2
import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration.comparison import Comparison
from comir_batch.registration.images import RegistrationImage, View


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


def test_an_affine_transform_lays_points_where_its_own_mapping_does():
    """Affine transforms take a short cut; a B-spline that bends nothing keeps one from it."""
    generator = np.random.default_rng(3)
    pixels = cv2.GaussianBlur(generator.normal(size=(90, 128)).astype(np.float32), (0, 0), 2)
    inside = generator.random(pixels.shape) > 0.1
    fixed = RegistrationImage(pixels, inside, Grid(128, 90, 2.0, 2.0, 37.0, -12.0))
    moving = RegistrationImage(pixels[::-1].copy(), inside, Grid(128, 90, 2.0, 2.0, -500.0, 4.0))
    compared = Comparison(View("raw", "ncc", fixed, moving))
    affine = Affine([[0.9, -0.4], [0.4, 1.05]], [-480.0, -20.0])
    flat = BSpline((0.0, 0.0), (50.0, 50.0), np.zeros((2, 4, 4)))
    (values, laid), (values_mapped, laid_mapped) = (
        compared.sampled(Composite(parts)) for parts in ((affine,), (flat, affine))
    )
    assert laid.sum() > 2000
    assert np.array_equal(laid, laid_mapped)
    assert np.abs(values - values_mapped)[laid].max() < 1e-3
