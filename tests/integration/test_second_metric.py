"""A second metric of the full fit, by real elastix: what the first cannot tell, raw images or landmarks do."""

import json

import numpy as np
import pytest
import runs
from skimage.data import immunohistochemistry
from typer.testing import CliRunner

from comir_batch.bench.known_motion import Motion, move
from comir_batch.cli.app import app
from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage, View, seconded
from comir_batch.training.ihc import haematoxylin_dab_channels

pytestmark = pytest.mark.slow

GRID = Grid(256, 256, 1.5, 1.5, 30.0, -12.0)
QUICK = RegisterConfig(iterations=120, samples=1024)
MOTION = Motion(angle_deg=2.0, shift_um=(6.0, -5.0), amplitude_um=3.0, spacing_um=150.0)


@pytest.fixture(scope="module")
def stain():
    return haematoxylin_dab_channels(immunohistochemistry())[0].astype(np.float32)


@pytest.fixture(scope="module")
def views(stain):
    """Return representations of two places that have nothing in common, raw images of one, and its motion."""
    here, elsewhere = stain[:256, :256], stain[256:512, 256:512]
    (moved, inside), grid, truth = move(np.stack([here, np.ones_like(here)]), GRID, MOTION)
    (unlike,), _, _ = move(elsewhere[None], GRID, MOTION)
    whole, mask = np.ones(GRID.shape, dtype=bool), inside > 0.5
    comir = View("comir", "ncc", RegistrationImage(here, whole, GRID), RegistrationImage(unlike, mask, grid))
    raw = View("raw", "mi", comir.fixed, RegistrationImage(-(moved**2), mask, grid))
    return comir, raw, truth


@pytest.fixture
def error_um(views, tmp_path):
    """Return what fits a view from a start that is 6 µm off, and tells how far off it ends."""
    truth = views[2]
    points = GRID.to_um(np.argwhere(np.ones(GRID.shape))[::97, ::-1])
    near = truth.parts[1]
    start = Composite((Affine(near.matrix, near.offset + np.array([4.0, -4.5])),))

    def fit(view, **settings):
        config = QUICK.model_copy(update=settings)
        found = Fitter(config).once(view, start, tmp_path, deformable=True)
        return float(np.median(np.linalg.norm(found.map(points) - truth.map(points), axis=1)))

    return fit


def test_raw_images_tell_what_representations_do_not(views, error_um):
    comir, raw, _ = views
    (alone, _), (both, other) = (seconded((comir, raw), second) for second in ("none", "raw"))
    assert other is raw
    assert error_um(alone) > 2
    assert error_um(both, second_weight=20.0) < 0.6


def test_landmarks_tell_what_representations_do_not(views, error_um):
    comir, _, truth = views
    fixed = GRID.to_um(np.random.default_rng(0).uniform(5, 250, (60, 2)))
    (led,) = seconded((comir,), "landmarks", (fixed, truth.map(fixed)))
    assert error_um(led, second_weight=50.0) < 1.0


def test_a_run_heeds_the_landmarks_of_its_manifest_and_says_so(tmp_path):
    truth = runs.make_slides(tmp_path)
    fixed = runs.tissue_points()[::40]
    for name, points in (("fixed", fixed), ("moving", truth.map(fixed))):
        np.savetxt(tmp_path / f"{name}.csv", points, delimiter=",", header="x_um,y_um", comments="")
    manifest = tmp_path / "pairs.csv"
    row = "a,fixed.ome.tif,moving.ome.tif,one,other"
    manifest.write_text(f"{runs.HEADER},fixed_landmarks,moving_landmarks\n{row},fixed.csv,moving.csv\n")
    quick = ["chunk.mpp=0.5", "register.iterations=50", "register.samples=1024", "register.angles=36"]
    quick += ["execution.executor=serial", "export.ome_tiff=false", "register.second_metric=landmarks"]
    command = ["run", str(manifest), "--out", str(tmp_path / "run"), "--model", "none"]
    command += [word for setting in quick for word in ("--set", setting)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "run" / "pairs" / "a"
    verdict = json.loads((folder / "verdict.json").read_text())
    assert any("the fit heeded them" in reason for reason in verdict["reasons"])
    assert verdict["metrics"]["tre_median_um"] < 1.0
    (parameters,) = (tmp_path / "run" / "work").glob("register-*/elastix/raw/Parameters.1.txt")
    assert "CorrespondingPointsEuclideanDistanceMetric" in parameters.read_text()

    manifest.write_text(f"{runs.HEADER}\n{row}\n")
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 3
    assert "the pair a has none. Give it fixed_landmarks" in " ".join(refused.output.split())
