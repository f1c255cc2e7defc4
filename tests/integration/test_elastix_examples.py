"""The elastix layer against ITKElastix' examples: its committed outputs, and its own tools on the same files.

The figures of docs/benchmarks.md: ``pytest tests/integration/test_elastix_examples.py --log-cli-level=INFO``. The
images have a spacing of 1 and their origin at 0, so lengths are in pixels. Of the expected outputs only
``outputpoints.txt`` is not held against ours: it is of a lung in three dimensions whose transform is not there.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from scipy import ndimage

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.io.transform_files import read_transform
from comir_batch.registration import parameters
from comir_batch.registration.elastix_maps import parse, read_chain, render
from comir_batch.registration.elastix_process import ElastixProcess, ElastixRequest
from comir_batch.registration.images import RegistrationImage
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

LOG = logging.getLogger(__name__)
GRID = Grid(256, 256, 1.0, 1.0)
PIXELS = np.indices(GRID.shape)[::-1].reshape(2, -1).T.astype(float)
DENSE = np.mgrid[-8:264:8, -8:264:8].reshape(2, -1).T + 0.3  # beyond the image too
ELASTIX_SEED = 121212  # where a parameter file names none, as in the examples
RIGID = ("exampleoutput/TransformParameters.0.txt",)
CHAINS = {  # each file names the one before it
    "rigid": RIGID,
    "rigid, B-spline": (*RIGID, "exampleoutput/TransformParameters.1.txt"),
    "B-spline": ("data/TransformParameters.1.txt",),
    "B-spline, B-spline": ("data/TransformParameters.1.txt", "data/TransformParameters.0.txt"),
}
# What ITK's own tools make of the examples, in a folder that shows them: transformix of each chain, and elastix.
REFERENCE = """
import itk, json, numpy as np, re, sys
fixed, moving = (itk.imread(f"data/CT_2D_head_{name}.mha", itk.F) for name in ("fixed", "moving"))

def points(maps, file):
    itk.transformix_pointset(moving, maps, fixed_point_set_file_name=file, output_directory=".")
    found = re.findall(r"(?:Input|Output)Point = \\[ (\\S+) (\\S+) \\]", open("outputpoints.txt").read())
    return np.array(found, float).reshape(-1, 4)

results = {}
for name, files in json.loads(sys.argv[1]).items():
    maps = itk.ParameterObject.New()
    maps.AddParameterFile(files[-1])
    maps.SetParameter("ResultImageFormat", "nii")
    for file in ("data/fixed_point_set_test.txt", "dense.txt"):
        results[f"{name}: {file}"] = points(maps, file)
    results[f"{name}: determinant"] = itk.array_from_image(itk.transformix_jacobian(moving, maps)[1])
    maps.SetParameter("FinalBSplineInterpolationOrder", "1")
    results[f"{name}: linear"] = itk.array_from_image(itk.transformix_filter(moving, maps))
np.savez("results.npz", **results)

maps = itk.ParameterObject.New()
maps.ReadParameterFiles(["stage.0.txt", "stage.1.txt", "stage.2.txt"])
elastix = itk.ElastixRegistrationMethod.New(fixed, moving)
elastix.SetMovingMask(itk.image_from_array(np.ones((256, 256), np.uint8)))
elastix.SetParameterObject(maps)
elastix.SetOutputDirectory(".")
elastix.UpdateLargestPossibleRegion()
"""


@dataclass(frozen=True)
class Reference:
    results: dict[str, NDArray[np.float64]]
    elastix: Composite


@pytest.fixture(scope="module")
def examples(shared_data) -> Path:
    folder = shared_data / "elastix_examples"
    if not folder.is_dir():
        pytest.skip(f"ITKElastix' examples are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def stages(examples) -> tuple[str, str, str]:
    """Return the parameters that made the expected transforms, elastix' defaults, which are not stored as such.

    ``parameters_custom.txt`` is the one for rigid transforms with another transform put in, ``Parameters.1.txt`` that
    for B-splines with three resolutions and 20 px asked for; the expected outputs have four and 10 px.
    """
    folder = examples / "exampleoutput"
    custom, bspline = (parse((folder / name).read_text()) for name in ("parameters_custom.txt", "Parameters.1.txt"))
    finer = {
        "NumberOfResolutions": ("4",),
        "FinalGridSpacingInPhysicalUnits": ("10",),
        "GridSpacingSchedule": tuple(repr(2 ** (halvings / 2)) for halvings in (3, 2, 1, 0)),
    }
    rigid, affine = (custom | {"Transform": (kind,)} for kind in ("EulerTransform", "AffineTransform"))
    return render(rigid), render(affine), render(bspline | finer)


@pytest.fixture(scope="module")
def reference(examples, stages, tmp_path_factory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    for name in ("data", "exampleoutput"):
        (folder / name).symlink_to(examples / name)
    for number, stage in enumerate(stages):
        (folder / f"stage.{number}.txt").write_text(stage)
    rows = "\n".join(f"{x!r} {y!r}" for x, y in DENSE.tolist())
    (folder / "dense.txt").write_text(f"point\n{len(DENSE)}\n{rows}\n")
    threads = {"ITK_GLOBAL_DEFAULT_THREADER": "Pool", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}
    run = [sys.executable, "-c", REFERENCE, json.dumps(CHAINS)]
    subprocess.run(run, cwd=folder, check=True, capture_output=True, env={**os.environ, **threads}, timeout=500)
    elastix = read_chain(folder / f"TransformParameters.{number}.txt" for number in range(3))
    return Reference(dict(np.load(folder / "results.npz")), elastix)


@pytest.fixture(scope="module")
def process() -> Iterator[ElastixProcess]:
    process = ElastixProcess(threads=1)
    yield process
    process.close()


@pytest.fixture(scope="module")
def found(process, examples, stages, tmp_path_factory) -> Composite:
    """Return what elastix, in our process and with its own seed, finds: rigid, affine, B-spline."""
    return process.register(_request(examples, stages, tmp_path_factory.mktemp("found"), ELASTIX_SEED)).transform


@pytest.fixture(scope="module")
def moving(examples) -> NDArray[np.float32]:
    return _pixels(examples / "data" / "CT_2D_head_moving.mha")


@pytest.fixture(scope="module")
def expected(examples) -> Composite:
    """Return the transform that ITK wrote as .h5: rigid, affine, B-spline."""
    return read_transform(examples / "exampleoutput" / "itk_composite_transform.h5")


@pytest.mark.parametrize("name", CHAINS)
def test_points_go_where_transformix_sends_them(examples, reference, name):
    transform = _chain(examples, name)
    for file, count in (("data/fixed_point_set_test.txt", 5), ("dense.txt", len(DENSE))):
        source, target = np.hsplit(reference.results[f"{name}: {file}"], 2)
        error = np.abs(transform.map(source) - target).max()
        LOG.info("%s: %d points of %s: within %.1e px", name, len(source), file, error)
        assert len(source) == count
        assert error < 1e-6  # transformix writes six decimals


def test_an_h5_is_read_as_itk_reads_it(examples, expected):
    itk = sitk.ReadTransform(str(examples / "exampleoutput" / "itk_composite_transform.h5"))
    error = np.abs(expected.map(DENSE) - [itk.TransformPoint(point) for point in DENSE.tolist()]).max()
    LOG.info(".h5: within %.1e px of SimpleITK", error)
    assert error < 1e-9


def test_the_rigid_part_is_the_same_in_both_formats(examples, expected):
    apart = _distances(Composite(expected.parts[:1]), _chain(examples, "rigid")).max()
    LOG.info("rigid part of the .h5 and of the text file: within %.1e px", apart)
    assert apart < 2e-4  # the text has six decimals: 1e-6 rad at 180 px from the centre


def test_the_expected_image_comes_out(examples, moving):
    transform = _chain(examples, "rigid")
    image, inside = _expected_image(examples), _inside(transform)
    spline = ndimage.map_coordinates(moving.astype(float), transform.map(PIXELS)[:, ::-1].T, order=3)
    error = np.abs(spline.reshape(GRID.shape) - image)[inside].max()
    LOG.info("expected image, cubic spline at our points: within %.4f of 251 grey levels", error)
    assert error < 0.01
    _check_warped(transform, moving, image)


@pytest.mark.parametrize("name", CHAINS)
def test_the_warp_is_transformix_linear_one(examples, reference, moving, name):
    transform = _chain(examples, name)
    warped = warp_array(moving[None], GRID, transform, GRID)[0]
    error = np.abs(warped - reference.results[f"{name}: linear"])[_inside(transform)].max()
    LOG.info("%s: warp within %.4f of 251 grey levels of transformix with order 1", name, error)
    assert error < 0.01


def test_the_expected_spatial_jacobian(examples):
    image = _pixels(examples / "exampleoutput" / "spatialJacobian.nii")
    error = np.abs(_chain(examples, "rigid").jacobian_determinant(PIXELS, 0.01) - image.ravel()).max()
    LOG.info("expected spatialJacobian.nii: within %.1e", error)
    assert error < 1e-6


@pytest.mark.parametrize("name", CHAINS)
def test_the_spatial_jacobian_is_transformix_one(examples, reference, name):
    transform = _chain(examples, name)
    far = ~_on_a_jump(transform)
    determinant = reference.results[f"{name}: determinant"].ravel()
    error = np.abs(transform.jacobian_determinant(PIXELS, 0.01) - determinant)[far].max()
    span = f"{determinant[far].min():.2f} to {determinant[far].max():.2f}"
    LOG.info("%s: determinants, %s: within %.1e at %d pixels", name, span, error, far.sum())
    assert error < 1e-5
    assert far.sum() > GRID.width * GRID.height - 1000


def test_elastix_in_our_process_is_plain_elastix(found, reference):
    distances = _distances(found, reference.elastix)
    _tell("our process against plain elastix", distances)
    assert distances.max() < 1e-9


def test_the_expected_rigid_transform_and_image_are_found(found, examples, moving):
    rigid = Composite(found.parts[:1])
    distances = _distances(rigid, _chain(examples, "rigid"))
    _tell("rigid, elastix' seed", distances)
    assert distances.max() < 0.01
    _check_warped(rigid, moving, _expected_image(examples))


def test_the_expected_h5_is_found(found, expected):
    distances = _distances(found, expected)
    affine = _distances(Composite(found.parts[:2]), Composite(expected.parts[:2]))
    _tell("rigid and affine, elastix' seed, against the .h5", affine)
    _tell("rigid, affine, B-spline, elastix' seed, against the .h5", distances)
    assert affine.max() < 0.5
    assert np.median(distances) < 0.2
    assert np.quantile(distances, 0.95) < 0.6


def test_the_expected_h5_is_found_with_another_seed(process, examples, stages, expected, tmp_path):
    seed = RegisterConfig().seed
    found = process.register(_request(examples, stages, tmp_path, seed)).transform
    distances = _distances(found, expected)
    _tell(f"rigid, seed {seed}", _distances(Composite(found.parts[:1]), Composite(expected.parts[:1])))
    _tell(f"rigid, affine, B-spline, seed {seed}, against the .h5", distances)
    assert np.median(distances) < 0.5
    assert np.quantile(distances, 0.95) < 1.2


def test_a_b_spline_from_the_rigid_start_is_the_expected_one(process, examples, stages, tmp_path):
    start, goal = _chain(examples, "rigid"), _chain(examples, "rigid, B-spline")
    found = process.register(_request(examples, stages[2:], tmp_path, ELASTIX_SEED, start)).transform
    distances = _distances(found, goal)
    _tell("B-spline from the expected rigid transform, elastix' seed", distances)
    assert np.abs(found.parts[1].origin - goal.parts[1].origin).max() < 1e-3  # the same control points
    assert np.abs(found.parts[1].spacing - goal.parts[1].spacing).max() < 1e-3
    assert np.median(distances) < 0.2
    assert np.quantile(distances, 0.95) < 0.6


def _request(examples, stages, folder, seed, initial=None) -> ElastixRequest:
    images = []
    for name in ("fixed", "moving"):
        pixels = _pixels(examples / "data" / f"CT_2D_head_{name}.mha")
        images.append(RegistrationImage(pixels, np.ones(GRID.shape, dtype=bool), GRID))
    maps = parameters.given(RegisterConfig(parameter_files=stages, seed=seed), deformable=True)
    return ElastixRequest(*images, maps, initial or Composite(), folder, 300.0)


def _chain(examples: Path, name: str) -> Composite:
    return read_chain(examples / file for file in CHAINS[name])


def _pixels(path: Path) -> NDArray[np.float32]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)


def _expected_image(examples: Path) -> NDArray[np.float32]:
    return _pixels(examples / "exampleoutput" / "result_image.mha")


def _distances(first: Composite, second: Composite) -> NDArray[np.float64]:
    return np.linalg.norm(first.map(PIXELS) - second.map(PIXELS), axis=1)


def _inside(transform: Composite) -> NDArray[np.bool_]:
    mapped = transform.map(PIXELS)
    return ((mapped >= 1) & (mapped <= 254)).all(axis=1).reshape(GRID.shape)


def _on_a_jump(transform: Composite) -> NDArray[np.bool_]:
    """Tell which pixels a part meets at the border of its control points, where its displacement jumps to zero."""
    at, jump = PIXELS, np.zeros(len(PIXELS), dtype=bool)
    for part in transform.parts:
        if not isinstance(part, Affine):
            count = np.array(part.coefficients.shape[:0:-1])
            for border in (part.origin + part.spacing, part.origin + part.spacing * (count - 2)):
                jump |= (np.abs(at - border) < 0.1).any(axis=1)
        at = part.map(at)
    return jump


def _check_warped(transform: Composite, moving: NDArray[np.float32], image: NDArray[np.float32]) -> None:
    """Assert that our warp, linear, gives an image that was made with cubic splines, but for what these sharpen."""
    error = np.abs(warp_array(moving[None], GRID, transform, GRID)[0] - image)[_inside(transform)]
    mean, high = error.mean(), np.quantile(error, 0.99)
    LOG.info("expected image, our linear warp: mean %.2f, 99th percentile %.2f of 251 grey levels", mean, high)
    assert mean < 1
    assert high < 6


def _tell(what: str, distances: NDArray[np.float64]) -> None:
    figures = (np.median(distances), np.quantile(distances, 0.95), distances.max())
    LOG.info("%s: median %.4f, 95th percentile %.4f, largest %.4f px", what, *figures)
