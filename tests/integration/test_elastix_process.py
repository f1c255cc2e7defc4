"""elastix in its child process, and fits with it: right, repeatable, and survived when it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import OutOfTimeError, RegistrationError, ShortOfMemoryError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.registration import parameters
from comir_batch.registration.elastix_maps import parse, render
from comir_batch.registration.elastix_process import ElastixProcess, ElastixRequest, shared_process
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage, View

pytestmark = pytest.mark.slow

GRID = Grid(260, 220, 1.5, 1.5, 30.0, -12.0)
QUICK = RegisterConfig(iterations=60, samples=1024)
STAGES = (
    *(stage("ncc", QUICK, GRID, 2) for stage in (parameters.rigid, parameters.affine)),
    parameters.bspline("ncc", QUICK, GRID, 2),
)
LONG = (parameters.bspline("ncc", RegisterConfig(iterations=200_000, samples=8192), GRID, 2),)


@pytest.fixture(scope="module")
def process():
    process = ElastixProcess(threads=2)
    yield process
    process.close()


@pytest.fixture(scope="module")
def pair():
    pixels = cv2.GaussianBlur(np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32), (0, 0), 4)
    mask = np.ones(GRID.shape, dtype=bool)
    (moved,), grid, truth = move(pixels[None], GRID, Motion(amplitude_um=4.0, spacing_um=150.0))
    moved_mask = move(mask.astype(np.float32)[None], GRID, Motion(amplitude_um=4.0, spacing_um=150.0))[0][0] > 0.5
    return RegistrationImage(pixels, mask, GRID), RegistrationImage(moved, moved_mask, grid), truth


def _request(pair, folder, stages=STAGES, limit=300.0):
    fixed, moving, truth = pair
    return ElastixRequest(fixed, moving, stages, Composite((truth.parts[1],)), folder, limit)


def test_a_known_deformation_is_found(process, pair, tmp_path):
    nasty = tmp_path / "a 'nasty' \"folder\"\nname"
    result = process.register(_request(pair, nasty))
    points = GRID.to_um(np.argwhere(np.ones(GRID.shape))[::97, ::-1])
    error = np.linalg.norm(result.transform.map(points) - pair[2].map(points), axis=1)
    assert np.median(error) < 0.3
    names = {path.name for path in nasty.iterdir()}
    wanted = {f"{stem}.{n}.txt" for stem in ("Parameters", "TransformParameters") for n in range(3)}
    assert names == wanted | {"InitialTransform.0.txt", "elastix.log"}
    unused = re.findall(r"Unused parameter: (\w+)", (nasty / "elastix.log").read_text())
    assert set(unused) <= {
        "NumberOfHistogramBins",
        "UseRandomSampleRegion",
    }  # of other metrics and samplers


def test_a_mask_full_of_holes_is_seen_as_it_is(process, pair, tmp_path):
    fixed, moving, truth = pair
    y, x = np.indices(GRID.shape)
    holed = fixed.masked((y % 12 >= 6) | (x % 12 >= 6))
    found = process.register(_request((holed, moving, truth), tmp_path)).transform
    points = GRID.to_um(np.argwhere(fixed.mask)[::97, ::-1])
    assert np.median(np.linalg.norm(found.map(points) - truth.map(points), axis=1)) < 0.3


def test_transformix_moves_points_alike(process, pair, tmp_path):
    transform = process.register(_request(pair, tmp_path)).transform
    rng = np.random.default_rng(1)
    points = np.concatenate([GRID.to_um(rng.uniform(0, 1, (200, 2)) * [259, 219]), GRID.corners_um()])
    reference = tmp_path / "points.txt"
    rows = "\n".join(f"{x!r} {y!r}" for x, y in points.tolist())
    reference.write_text(f"point\n{len(points)}\n{rows}\n")
    code = """
import numpy as np
from itk import elxParameterObjectPython, itkPyBufferPython, itkTransformixFilterPython  # all of itk takes long to load
maps = elxParameterObjectPython.elastixParameterObject.New()
maps.AddParameterFile("TransformParameters.2.txt")  # it names the one before, and so on to the first
pixels = np.zeros((9, 9), np.float32)
method = itkTransformixFilterPython.itkTransformixFilterIF2.New()
method.SetMovingImage(itkPyBufferPython.itkPyBufferIF2.GetImageViewFromArray(pixels))
method.SetTransformParameterObject(maps)
method.SetFixedPointSetFileName("points.txt")
method.SetOutputDirectory(".")
method.UpdateLargestPossibleRegion()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, timeout=300)
    lines = (tmp_path / "outputpoints.txt").read_text().splitlines()
    outputs = [line.split("OutputPoint = [")[1].split("]")[0].split() for line in lines]
    np.testing.assert_allclose(transform.map(points), np.array(outputs, dtype=float), atol=1.5e-6)  # six decimals


def test_results_repeat_to_the_bit(process, pair, tmp_path):
    first = process.register(_request(pair, tmp_path / "1")).transform.to_dict()
    assert process.register(_request(pair, tmp_path / "2")).transform.to_dict() == first
    process.close()
    assert process.register(_request(pair, tmp_path / "3")).transform.to_dict() == first


def test_elastix_own_words_are_shown(process, pair, tmp_path):
    fixed, moving, _ = pair
    far = ElastixRequest(fixed, moving, STAGES, Composite((Affine(np.eye(2), [9e4, 0]),)), tmp_path, 300.0)
    with pytest.raises(RegistrationError, match="Too many samples map outside moving image buffer"):
        process.register(far)
    assert not (tmp_path / "request").exists()


def test_the_time_limit_ends_it_and_the_next_request_runs(process, pair, tmp_path):
    with pytest.raises(OutOfTimeError, match="time limit of 1 s"):
        process.register(_request(pair, tmp_path / "long", LONG, limit=1.0))
    assert process.register(_request(pair, tmp_path / "next")).seconds > 0
    assert not (tmp_path / "long" / "request").exists()


def test_a_killed_child_is_an_error_and_the_next_request_runs(process, pair, tmp_path):
    process.register(_request(pair, tmp_path / "warm"))
    threading.Timer(2.0, os.kill, (process.pid, signal.SIGKILL)).start()
    with pytest.raises(ShortOfMemoryError, match="SIGKILL"):
        process.register(_request(pair, tmp_path / "long", LONG))
    assert process.register(_request(pair, tmp_path / "next")).seconds > 0


@pytest.mark.parametrize("busy", [False, True])
def test_the_child_dies_with_its_parent(busy, pair, tmp_path):
    fixed, moving, _ = pair
    np.savez(tmp_path / "pair.npz", fixed=fixed.pixels, moving=moving.pixels)
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path), str(int(busy))], stdout=subprocess.PIPE)
    child = json.loads(parent.stdout.readline())
    time.sleep(1.0)
    assert _alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(50):
        if not _alive(child):
            return
        time.sleep(0.1)
    pytest.fail(f"child {child} outlived its parent")


_PARENT = """
import sys, threading, time
import numpy as np
from pathlib import Path
from comir_batch.bench.known_motion import Motion, move
from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Composite
from comir_batch.registration import parameters
from comir_batch.registration.elastix_process import ElastixRequest, shared_process
from comir_batch.registration.images import RegistrationImage

folder, busy = Path(sys.argv[1]), sys.argv[2] == "1"
images = []
for name, pixels in np.load(folder / "pair.npz").items():
    grid = Grid(pixels.shape[1], pixels.shape[0], 1.5, 1.5)
    images.append(RegistrationImage(pixels, np.ones(grid.shape, dtype=bool), grid))
def ask(iterations):
    stages = (parameters.rigid("ncc", RegisterConfig(iterations=iterations, samples=8192), images[0].grid, 2),)
    shared_process(2).register(ElastixRequest(*images, stages, Composite(), folder / "work", 300.0))
ask(10)
if busy:
    threading.Thread(target=ask, args=(200_000,)).start()
    time.sleep(2)
print(shared_process(2).pid, flush=True)
time.sleep(300)
"""


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_child_that_cannot_start_says_why(monkeypatch, pair, tmp_path):
    (tmp_path / "itk.py").write_text("raise ImportError('no itk here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = ElastixProcess(threads=1)
    with pytest.raises(RegistrationError, match="cannot start elastix: no itk here; is itk-elastix installed"):
        process.register(_request(pair, tmp_path / "work"))
    assert process.pid is None


def test_the_shared_process_is_one():
    assert shared_process(2) is shared_process(2)


def test_the_users_parameter_files_are_what_elastix_gets(pair, tmp_path):
    fixed, moving, truth = pair
    paths = [tmp_path / "first.txt", tmp_path / "second.txt"]
    for path, stage in zip(paths, (STAGES[0], STAGES[2]), strict=True):
        path.write_text(render({**stage, "MaximumNumberOfIterations": ("70",)}))
    config = RegisterConfig(parameter_files=tuple(map(str, paths)))
    view, start = View("comir", "ncc", fixed, moving), Composite((truth.parts[1],))
    fitted = Fitter(config).full(view, start, tmp_path / "fit", deformable=True)
    assert [attempt.name for attempt in fitted.attempts] == ["as configured"]
    given = [parse((tmp_path / "fit" / f"Parameters.{n}.txt").read_text()) for n in (0, 1)]
    assert [stage["MaximumNumberOfIterations"] for stage in given] == [("70",), ("70",)]
    assert not (tmp_path / "fit" / "Parameters.2.txt").exists()
    points = GRID.to_um(np.argwhere(np.ones(GRID.shape))[::97, ::-1])
    error = np.linalg.norm(fitted.transform.map(points) - truth.map(points), axis=1)
    assert np.median(error) < 0.5
    paths[1].write_text(render({**STAGES[2], "ImageSampler": ("NoSuchSampler",)}))
    config = QUICK.model_copy(update={"parameter_files": tuple(path.read_text() for path in paths)})
    fitted = Fitter(config).full(view, start, tmp_path / "again", deformable=True)
    assert [attempt.name for attempt in fitted.attempts] == [
        "as configured",
        "by the preset instead of the parameter files",
    ]


def _spoilt(stage):
    """Return a stage with which elastix fails: it asks for samples that it cannot have."""

    def parameters_of(*arguments):
        return {**stage(*arguments), "ImageSampler": ("NoSuchSampler",)}

    return parameters_of


@pytest.mark.parametrize(
    ("spoilt", "tried", "bends"),
    [
        ((), ["as configured"], True),
        (
            ("bspline",),
            [
                "as configured",
                "four times the samples, half the control points along each axis",
                "without B-spline",
            ],
            False,
        ),
        (
            ("bspline", "rigid"),
            [
                "as configured",
                "four times the samples, half the control points along each axis",
                "without B-spline",
                "not at all: the start",
            ],
            False,
        ),
    ],
)
def test_where_elastix_fails_less_is_asked_of_it_and_every_attempt_is_told(
    spoilt, tried, bends, pair, tmp_path, monkeypatch
):
    fixed, moving, truth = pair
    for name in spoilt:
        monkeypatch.setattr(parameters, name, _spoilt(getattr(parameters, name)))
    start = Composite((truth.parts[1],))
    fitted = Fitter(QUICK).full(View("comir", "ncc", fixed, moving), start, tmp_path / "fit", deformable=True)
    assert [attempt.name for attempt in fitted.attempts] == tried
    assert all("NoSuchSampler" in attempt.error for attempt in fitted.attempts[:-1])
    assert fitted.attempts[-1].error == ""
    assert isinstance(fitted.transform.parts[-1], BSpline) == bends
    points = GRID.to_um(np.argwhere(np.ones(GRID.shape))[::97, ::-1])
    error = np.linalg.norm(fitted.transform.map(points) - truth.map(points), axis=1)
    assert np.median(error) < (0.5 if bends else 4.0)  # the motion bends by up to 4 µm
    assert all(
        str(tmp_path / "fit" / f"elastix-attempt-{n + 1}.log") in attempt.error
        for n, attempt in enumerate(fitted.attempts[:-1])
    )
    logs = {path.name for path in (tmp_path / "fit").glob("elastix-attempt-*.log")}
    assert logs == {f"elastix-attempt-{n + 1}.log" for n in range(len(tried) - 1)}
    if len(spoilt) == 2:
        assert not list((tmp_path / "fit").glob("*.txt"))
