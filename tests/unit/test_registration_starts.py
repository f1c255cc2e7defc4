"""Which view gets the full fit follows from what the held-out tiles say of the best start."""

import math

import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Composite
from comir_batch.registration.images import RegistrationImage, View
from comir_batch.registration.starts import CandidateReport, Start, final_view

IMAGE = RegistrationImage(np.zeros((8, 8), np.float32), np.ones((8, 8), dtype=bool), Grid(8, 8, 1.0, 1.0))
COMIR, RAW = View("comir", "ncc", IMAGE, IMAGE), View("raw", "mi", IMAGE, IMAGE)


@pytest.mark.parametrize(
    ("comir", "raw", "chosen"),
    [
        (20.0, 90.0, "comir"),  # beyond doubt, and finer
        (2.9, 1.4, "comir"),  # neither is: the better
        (1.4, 2.9, "raw"),
        (-0.3, 30.0, "raw"),
        (math.nan, 0.5, "raw"),
        (0.5, math.nan, "comir"),
    ],
)
def test_the_representations_when_beyond_doubt_else_the_more_significant(comir, raw, chosen):
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, {"comir": comir, "raw": raw}, 0.1)  # noqa: FBT003
    views = [COMIR, RAW]
    view, others = final_view(views, Start(RAW, Composite(), None, report), RegisterConfig(trust_z=4.0))
    assert view.name == chosen
    assert [view, *others] in (views, views[::-1])


def test_a_single_view_is_taken_whatever_it_says():
    report = CandidateReport("raw", 0.0, False, 1.0, 5.0, {"raw": math.nan}, 0.1)  # noqa: FBT003
    assert final_view([RAW], Start(RAW, Composite(), None, report), RegisterConfig()) == (RAW, [])
