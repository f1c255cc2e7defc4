"""What pages show of single places."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, Composite
from comir_batch.pipeline.pictures import _worst_places
from comir_batch.registration.evened import raw_view
from comir_batch.registration.images import RegistrationImage, View

GRID = Grid(288, 288, 1.0, 1.0)
STILL = Composite((Affine(np.eye(2), np.zeros(2)),))


@pytest.mark.parametrize("kind", ["raw", "comir"])
def test_the_worst_places_are_shown_in_all_their_shades(kind):
    """Raw images are evened, so half of their pixels lie below zero; and each has a range of its own."""
    noise = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    everywhere = np.ones(GRID.shape, bool)
    fixed, moving = (
        RegistrationImage(3 + share * smooth, everywhere, GRID) for share in ((1.0, 40.0) if kind == "raw" else (1, 1))
    )
    view = raw_view(fixed, moving) if kind == "raw" else View("comir", "ncc", fixed, moving)
    after = np.full((6, 6), 0.5)
    after[2, 3] = 0.1
    (place, *_) = _worst_places(view, STILL, {"after": after})
    assert (place.x_um, place.y_um) == (167.5, 119.5)
    for crop in (place.fixed, place.after):
        assert np.unique(crop).size > 1000
        assert np.mean((crop == 0) | (crop == 1)) < 0.1
        assert 0.3 < np.median(crop) < 0.7
    np.testing.assert_allclose(place.fixed, place.after, atol=0.02)
