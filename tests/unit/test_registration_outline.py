"""Outlines tell where whole sections lie, where what is inside tells nothing; cut-outs have none."""

import math

import cv2
import numpy as np
import pytest

from comir_batch.core.config import JudgeConfig, RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.outline import outlines, rimmed
from comir_batch.registration.starts import Starts, margin

SIDE, MPP = 256, 2.0
GRID = Grid(SIDE, SIDE, MPP, MPP)
CONFIG = RegisterConfig(search_side=128, angles=60)


def image(mask, seed=0):
    noise = np.random.default_rng(seed).normal(size=mask.shape).astype(np.float32)
    return RegistrationImage(cv2.GaussianBlur(noise, (0, 0), 2), mask, GRID)


def raw(fixed, moving):
    return View("raw", "mi", image(fixed, 1), image(moving, 2))


def section(transform=None):
    """Return the mask of a section that looks like itself at no other angle and in no mirror."""
    outline = np.array([[50, 90], [120, 60], [200, 75], [205, 140], [150, 150], [140, 195], [80, 190], [95, 140]])
    points = outline if transform is None else transform.map(outline * MPP) / MPP
    return cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [np.rint(points).astype(np.int32)], 1).astype(bool)


def motion(degrees, *, mirrored):
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return Affine.about(turn @ np.diag([-1.0 if mirrored else 1.0, 1.0]), GRID.corners_um().mean(axis=0), (12.0, -9.0))


def test_pixels_tell_how_near_the_glass_is_and_the_border_of_the_image_is_none():
    cut = np.zeros((SIDE, SIDE), dtype=bool)
    cut[:, :200] = True  # goes on beyond three borders
    view = outlines(raw(cut, cut))
    assert (view.name, view.metric) == ("outline", "ncc")
    row = view.fixed.pixels[SIDE // 2]
    assert np.allclose(row, view.fixed.pixels)
    near = 0.02 * SIDE  # pixels, a fiftieth of the tissue's longer side
    assert row[199] == pytest.approx(math.exp(-1 / near))
    assert row[190] == pytest.approx(math.exp(-10 / near), rel=0.02)
    assert row[0] < 1e-9
    assert np.array_equal(view.moving.mask, cut)


@pytest.mark.parametrize("whole", ["fixed", "moving"])
def test_a_cut_out_has_no_outline(whole):
    full, part = np.ones((SIDE, SIDE), dtype=bool), section()
    assert outlines(raw(full, part) if whole == "fixed" else raw(part, full)) is None
    hole = full.copy()
    hole[100:103, 100:103] = False
    assert outlines(raw(hole, hole)) is None


@pytest.mark.parametrize(("degrees", "mirrored"), [(0.0, False), (140.0, True)])
def test_sections_whose_inside_tells_nothing_are_found_by_their_outlines(degrees, mirrored):
    truth = motion(degrees, mirrored=mirrored)
    view = raw(section(), section(truth))
    starts = Starts([view], CONFIG, outlines(view)).found()
    best, corners = starts[0], GRID.corners_um()
    assert np.linalg.norm(best.transform.map(corners) - truth.map(corners), axis=1).mean() < 0.03 * SIDE * MPP
    assert set(best.likelihood) == {"raw", "outline"}
    assert set(best.held_out) == {"raw"}  # verdicts do not rest on outlines
    assert best.likelihood["outline"] > 20
    asked_for = JudgeConfig().min_margin_nats
    assert margin(starts) > asked_for
    assert margin(Starts([view], CONFIG).found()) < asked_for  # nothing else tells


def test_views_are_fitted_and_outlines_are_not():
    view = raw(section(), section())
    starts = Starts([view], CONFIG, outlines(view))
    assert [each.name for each in starts.views] == ["raw"]


def test_a_rim_of_glass_goes_round_the_tissue():
    tissue = np.zeros((SIDE, SIDE), dtype=bool)
    tissue[100:150, 60:160] = True
    view = rimmed(raw(tissue, tissue))
    rows, columns = np.nonzero(view.fixed.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (94, 155, 54, 165)  # 0.06 of 100 pixels
    assert np.array_equal(view.moving.mask, view.fixed.mask)
    full = np.ones((SIDE, SIDE), dtype=bool)
    assert rimmed(raw(full, full)).fixed.mask.all()


def test_a_fit_of_raw_images_sees_the_rim_but_no_held_out_tile():
    view = raw(section(), section())
    starts = Starts([view], CONFIG, outlines(view))
    (tissue,), (fitted,) = starts.views, starts.fitted
    assert fitted.fixed.mask.sum() > tissue.fixed.mask.sum()
    assert not (fitted.fixed.mask & starts.held_out).any()
    (alone,) = Starts([view], CONFIG).fitted
    assert np.array_equal(alone.fixed.mask, tissue.fixed.mask)
