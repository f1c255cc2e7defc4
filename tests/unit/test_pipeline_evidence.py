"""What a verdict rests on, gathered from images and transforms."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.pipeline.evidence import Found, gather, sights
from comir_batch.pipeline.stages.judge import _own_files
from comir_batch.registration.elastix_maps import render
from comir_batch.registration.evened import raw_view
from comir_batch.registration.fit import Attempt
from comir_batch.registration.images import RegistrationImage
from comir_batch.registration.parameters import preset

GRID = Grid(192, 192, 1.0, 1.0)
NEAR = Affine(np.eye(2), np.array([3.0, 4.0]))
WAVES = 8.0 * np.sin(np.arange(12) / 2) * np.ones((2, 12, 1))
BENT = BSpline(np.array([-40.0, -40.0]), np.array([30.0, 30.0]), WAVES)


@pytest.fixture(scope="module")
def view():
    noise = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    image = RegistrationImage(cv2.GaussianBlur(noise, (0, 0), 3), np.ones(GRID.shape, bool), GRID)
    return raw_view(image, image)


def found(start, transform, **changes):
    held_out = np.zeros(GRID.shape, bool)
    held_out[48:144, 48:144] = True
    return Found("raw", Composite(start), Composite(transform), held_out, [Attempt("as configured")], **changes)


def gathered(view, found):
    return gather(sights((view,), found), found, 0, None)


def test_a_start_that_bends_is_no_disagreement(view):
    same = found((BENT,), (BENT, NEAR), other=Composite((BENT, NEAR)), backward=Composite((NEAR.inverse(),)))
    told = gathered(view, same)
    assert told.disagreement_um == 0.0
    assert told.inverse is None  # the fit back cannot undo it


def test_what_the_fit_bends_beyond_the_start_is_left_out_of_what_it_is_compared_by(view):
    straight = found((), (NEAR, BENT), other=Composite((NEAR,)), backward=Composite((NEAR.inverse(),)))
    told = gathered(view, straight)
    assert told.disagreement_um == 0.0
    assert told.inverse.median_um == pytest.approx(0.0, abs=1e-9)


def test_so_is_what_blocks_bend_before_the_start(view):
    blocks, fitted = (replace(BENT, coefficients=share * WAVES) for share in (0.3, 0.4))
    bent = found((BENT,), (blocks, BENT, NEAR, fitted), other=Composite((BENT, NEAR)))
    assert gathered(view, bent).disagreement_um == 0.0


@pytest.mark.parametrize(("metric", "told"), [("mi", 0), ("ncc", 1)])
def test_own_parameter_files_of_the_other_view_are_told(view, metric, told):
    text = render(preset(metric, RegisterConfig(), GRID)["rigid"])
    work = SimpleNamespace(registration=RegisterConfig().model_copy(update={"parameter_files": (text,)}))
    straight = found((), (NEAR,))
    sight = sights((view,), straight)["raw"]
    sentences = list(_own_files(work, straight, sight))
    assert len(sentences) == told
    assert all("compare representations; the pair was fitted in its raw images" in each for each in sentences)
    tried_again = replace(straight, attempts=[Attempt("as configured", "it crashed"), Attempt("by the preset")])
    assert not list(_own_files(work, tried_again, sight))


@pytest.mark.parametrize("error", ["", "elastix was stopped at its time limit"])
def test_why_the_fit_to_compare_with_failed_is_told(view, error):
    assert gathered(view, found((), (NEAR,), other_error=error)).other_error == error
