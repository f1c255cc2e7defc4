"""Which pixels each stage of a fit gets."""

import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.registration.evened import raw_view
from comir_batch.registration.fit import Fitter
from comir_batch.registration.images import RegistrationImage

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
