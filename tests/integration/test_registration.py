"""Registration of real slides of two modalities: a known motion is found, and a wrong start is seen to be wrong."""

from dataclasses import replace

import cv2
import numpy as np
import openslide
import pytest

from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.elastix_maps import parse
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.register import register

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def levels(ndpi_pair):
    return [_level(path, 3) for path in ndpi_pair]


@pytest.fixture(scope="module")
def tissue(levels):
    dapi, tritc = levels
    grid, mask = tritc[1], _tissue(tritc[0])
    motion = Motion(25.0, (35.0, -20.0), amplitude_um=12.0)
    (moved,), moved_grid, truth = move(tritc[0][None], grid, motion)
    moved_mask = move(mask.astype(np.float32)[None], grid, motion)[0][0] > 0.5
    fixed, moving = RegistrationImage(dapi[0], mask, grid), RegistrationImage(moved, moved_mask, moved_grid)
    return View("raw", "mi", fixed, moving), truth


def _level(path, level):
    with openslide.OpenSlide(str(path)) as slide:
        size = slide.level_dimensions[level]
        mpp = float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) * slide.level_downsamples[level]
        pixels = np.asarray(slide.read_region((0, 0), level, size))[..., :3].max(axis=2)
    return pixels.astype(np.float32), Grid(*size, mpp, mpp)


def _tissue(pixels):
    smooth = cv2.normalize(cv2.GaussianBlur(np.log1p(pixels), (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)
    return cv2.threshold(smooth.astype(np.uint8), 0, 1, cv2.THRESH_OTSU)[1].astype(bool)


def test_two_real_modalities_are_registered(tissue, tmp_path):
    view, truth = tissue
    config = RegisterConfig(iterations=250)
    found = register([view], config, deformable=True, initial=None, folder=tmp_path)
    grid, mask = view.fixed.grid, view.fixed.mask
    points = grid.to_um(np.argwhere(mask)[::101, ::-1])
    error = np.linalg.norm(found.transform.map(points) - truth.map(points), axis=1)
    assert np.median(error) < 2.5
    assert found.view == "raw"
    assert found.winner is not None
    assert found.candidates[0].held_out["raw"] > 4
    assert found.held_out.shape == grid.shape
    assert found.other.transform is None
    back = found.backward.transform.map(found.transform.map(points))
    assert np.median(np.linalg.norm(back - points, axis=1)) < 5.0  # the fit back bends nothing
    assert parse(max(tmp_path.glob("raw/TransformParameters.*.txt")).read_text())["GridSize"]


@pytest.mark.parametrize("stretch", [1.0, 1.05])
def test_a_field_is_stretched_only_where_that_explains_more(stretch, levels, tmp_path):
    """The moving slide's pixels are said to be wider than they are: an affine transform must find by how much."""
    (dapi, grid), (tritc, _) = levels
    field = Grid(256, 256, grid.mpp_x, grid.mpp_y)
    window = slice(200, 456), slice(120, 376)
    motion = Motion(10.0, (20.0, -10.0), amplitude_um=0.0)
    (moved,), moved_grid, truth = move(tritc[window][None], field, motion)
    wide = replace(moved_grid, mpp_x=moved_grid.mpp_x * stretch)
    inside = move(np.ones((1, 256, 256), np.float32), field, motion)[0][0] > 0.5
    fixed = RegistrationImage(dapi[window], np.ones((256, 256), bool), field)
    view = View("raw", "mi", fixed, RegistrationImage(moved, inside, wide))
    middle = truth.map(field.corners_um().mean(axis=0)[None])[0]
    start = Composite((Affine(np.eye(2), middle * [stretch - 1, 0]).after(truth.parts[1]),))
    found = register([view], RegisterConfig(threads=2), deformable=False, initial=start, folder=tmp_path).transform
    widths = np.linalg.svd(found.parts[0].matrix)[1]
    if stretch == 1.0:
        np.testing.assert_allclose(widths, 1.0, atol=1e-6)
    else:
        np.testing.assert_allclose(widths, [stretch, 1.0], atol=0.01)


def test_a_wrong_start_is_not_significant_and_repeats(tissue, tmp_path):
    view, truth = tissue
    aside = truth.parts[1].after(Affine(np.eye(2), [300.0, -250.0]))
    config = RegisterConfig(iterations=60, samples=1024)
    found, again = (
        register([view], config, deformable=False, initial=Composite((aside,)), folder=tmp_path / name) for name in "ab"
    )
    assert found.winner is None
    assert found.candidates[0].held_out["raw"] < 4
    assert found.transform.to_dict() == again.transform.to_dict()
