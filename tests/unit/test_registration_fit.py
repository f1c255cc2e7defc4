"""Which pixels each stage of a fit gets."""

import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import OutOfTimeError, RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.elastix_maps import read_chain, write_chain
from comir_batch.registration.evened import raw_view
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.register import register

SIDE = 288
GRID = Grid(SIDE, SIDE, 1.0, 1.0)
STILL = Affine(np.eye(2), np.zeros(2))


def image(seed):
    pixels = np.random.default_rng(seed).normal(size=GRID.shape).astype(np.float32)
    return RegistrationImage(pixels + np.linspace(0, 9, SIDE, dtype=np.float32), np.ones(GRID.shape, bool), GRID)


class Told(Fitter):
    """Keeps what elastix would get: whether images are evened, and the transform of each stage."""

    def __init__(self, config):
        super().__init__(config)
        self.given = []

    def _run(self, view, stages, start, folder):
        folder.mkdir(parents=True, exist_ok=True)
        kinds = [stage["Transform"][0] for stage in stages]
        self.given.append((abs(view.fixed.pixels.mean()) < 1, kinds))
        return Composite((*start.parts, *(STILL for _ in stages)))


@pytest.mark.parametrize("side", [64, 256])  # with finer resolutions than the coarse fit's, and without
@pytest.mark.parametrize("deformable", [True, False])
def test_raw_images_are_turned_and_stretched_as_scanned_and_bent_evened(side, deformable, tmp_path):
    fitter = Told(RegisterConfig(search_side=side))
    fitter.once(raw_view(image(0), image(1)), Composite((STILL,)), tmp_path, deformable=deformable)
    assert fitter.given[0] == (False, ["EulerTransform", "AffineTransform"])
    finer = ["EulerTransform"] * (side == 64)
    bends = [(True, [*finer, "RecursiveBSplineTransform"])] if deformable else [(False, finer)] if finer else []
    assert fitter.given[1:] == bends


MORE = "four times the samples, half the control points along each axis"


@pytest.mark.parametrize(
    ("error", "files", "tried"),
    [
        (RegistrationError("it crashed"), (), ["as configured", MORE, "without B-spline"]),
        (OutOfTimeError("too slow"), (), ["as configured", "without B-spline"]),
        (
            OutOfTimeError("too slow"),
            ("given",),
            ["as configured", "by the preset instead of the parameter files", "without B-spline"],
        ),
    ],
)
def test_what_takes_longer_is_not_tried_after_a_time_limit(error, files, tried, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(Fitter, "once", fails)
    config = RegisterConfig().model_copy(update={"parameter_files": files})
    fitted = Fitter(config).full(raw_view(image(0), image(1)), Composite((STILL,)), tmp_path, deformable=True)
    assert [attempt.name for attempt in fitted.attempts] == [*tried, "not at all: the start"]
    assert {attempt.out_of_time for attempt in fitted.attempts[:-1]} == {isinstance(error, OutOfTimeError)}
    assert fitted.is_start


def test_where_a_fit_is_set_aside_for_the_start_elastix_files_are_the_start(tmp_path, monkeypatch):
    def astray(_, view, start, folder, **_settings):
        folder.mkdir(parents=True, exist_ok=True)
        found = start.then(Affine(np.eye(2), np.array([90.0, -70.0])), STILL)
        write_chain(found, view.fixed.grid, folder, "TransformParameters")
        (folder / "elastix.log").touch()
        return found

    monkeypatch.setattr(Fitter, "once", astray)
    one = image(0)
    views = View("comir", "ncc", one, one), raw_view(one, one)
    found = register(views, RegisterConfig(trust_z=1.0), deformable=False, initial=Composite((STILL,)), folder=tmp_path)
    assert found.attempts[-1].name == "not at all: the start"
    files = sorted((tmp_path / found.view).glob("*.txt"))
    assert read_chain(files).to_dict() == found.transform.to_dict()
    assert (tmp_path / found.view / "elastix.log").exists()
