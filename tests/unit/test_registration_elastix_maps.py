"""elastix' parameter maps are read and written without loss."""

import math

import numpy as np
import pytest

from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration.elastix_maps import parse, read_chain, render, to_map, to_transform, write_chain

GRID = Grid(400, 300, 0.9, 0.8, 10.0, -7.0)
POINTS = np.array([[0.0, 0.0], [120.0, -30.5], [250.25, 199.0]])


def _map(kind, values, **more):
    return {
        "Transform": (kind,),
        "TransformParameters": tuple(repr(float(value)) for value in values),
        "FixedImageDimension": ("2",),
        "CenterOfRotationPoint": ("100", "50"),
        **more,
    }


def test_parse_reads_numbers_texts_and_comments():
    text = '// head\n(Transform "EulerTransform")\n(Spacing 0.5 1e-3) // tail\n\n(Name "two words" "b")\nnoise\n'
    assert parse(text) == {"Transform": ("EulerTransform",), "Spacing": ("0.5", "1e-3"), "Name": ("two words", "b")}


def test_render_is_read_back():
    parameters = {"Transform": ("AffineTransform",), "A": ("1", "-2.5e-07"), "B": ("two words",), "C": ("false",)}
    assert parse(render(parameters)) == parameters
    assert '(C "false")' in render(parameters)


def test_euler_turns_about_its_centre():
    found = to_transform(_map("EulerTransform", [math.pi / 2, 3, 4]))
    np.testing.assert_allclose(found.map([[110.0, 50.0]]), [[103.0, 64.0]], atol=1e-12)


def test_similarity_scales_then_turns():
    found = to_transform(_map("SimilarityTransform", [2.0, math.pi / 2, 3, 4]))
    np.testing.assert_allclose(found.map([[110.0, 50.0]]), [[103.0, 74.0]], atol=1e-12)


def test_translation_moves():
    found = to_transform(_map("TranslationTransform", [3, 4]))
    np.testing.assert_allclose(found.map(POINTS), POINTS + np.array([3, 4]))


def test_affine_acts_about_its_centre():
    found = to_transform(_map("AffineTransform", [1.1, 0.2, -0.1, 0.9, 3, 4]))
    np.testing.assert_allclose(found.map([[100.0, 50.0]]), [[103.0, 54.0]])
    np.testing.assert_allclose(found.map([[110.0, 50.0]]), [[114.0, 53.0]])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Transform": ("SplineKernelTransform",)}, "SplineKernelTransform"),
        ({"FixedImageDimension": ("3",)}, "two dimensions"),
        ({"TransformParameters": ("1", "2")}, "wrong"),
        ({"TransformParameters": ("nan",) * 6}, "finite"),
    ],
)
def test_what_cannot_be_read_is_an_error(change, told):
    with pytest.raises(RegistrationError, match=told):
        to_transform({**_map("AffineTransform", [1, 0, 0, 1, 0, 0]), **change})


def test_a_turned_bspline_grid_is_refused():
    bspline = to_map(_bspline(), GRID, None)
    with pytest.raises(RegistrationError, match="GridDirection"):
        to_transform({**bspline, "GridDirection": ("0", "1", "-1", "0")})


def test_a_chain_survives_its_files(tmp_path):
    chain = Composite((Affine([[0.9, -0.3], [0.31, 1.1]], [1 / 3, -2e-7]), _bspline()))
    last = write_chain(chain, GRID, tmp_path, "Initial")
    assert last == tmp_path / "Initial.1.txt"
    assert parse(last.read_text())["InitialTransformParameterFileName"] == ("Initial.0.txt",)
    found = read_chain([tmp_path / "Initial.0.txt", last])
    assert found.to_dict() == chain.to_dict()


def test_the_identity_needs_no_file(tmp_path):
    assert write_chain(Composite(), GRID, tmp_path, "Initial") is None
    assert not list(tmp_path.iterdir())


def _bspline():
    coefficients = np.random.default_rng(0).normal(size=(2, 6, 8)) * 5
    return BSpline([-60.0, -70.0], [51.7, 50.3], coefficients)
