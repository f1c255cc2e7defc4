"""transformix reads what the elastix dialect writes as the same transform."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine, BSpline, Composite
from comir_batch.pipeline.conversion import write
from comir_batch.pipeline.dialects import DIALECTS
from comir_batch.pipeline.encoding import Job

GRID = Grid(60, 50, 5.0, 4.0)
# Saves transformix' displacement at every pixel of the domain that the files name; itk has a process of its own.
READ = """
import itk, numpy, sys
files, out = sys.argv[1:-1], sys.argv[-1]
parameters = itk.ParameterObject.New()
parameters.ReadParameterFiles(files)
moving = itk.GetImageFromArray(numpy.zeros((50, 60), numpy.float32))
numpy.save(out, itk.GetArrayFromImage(itk.transformix_deformation_field(moving, parameters)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("forward", [True, False])
def test_transformix_moves_every_pixel_as_the_transform_does(tmp_path, forward):
    turn = Affine(np.array([[0.96, -0.2], [0.25, 1.02]]), np.array([30.0, -20.0]))
    bend = BSpline(np.full(2, -150.0), np.full(2, 60.0), np.random.default_rng(0).normal(0, 2, (2, 12, 13)))
    transform = Composite((turn, bend))
    folder = tmp_path / "elastix"
    written = write(Job(transform, forward, lambda _: GRID), DIALECTS["elastix"], folder)
    last = max(path.name for path in folder.glob("*.txt"))
    out = tmp_path / "field.npy"
    run = [sys.executable, "-c", READ, last, str(out)]
    subprocess.run(run, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    y, x = np.mgrid[: GRID.height, : GRID.width]
    points = GRID.to_um(np.column_stack([x.ravel(), y.ravel()]))
    mapped = points + np.load(out).reshape(-1, 2)
    if forward:
        assert np.abs(mapped - transform.map(points)).max() < 1e-3
    else:
        assert np.abs(transform.map(mapped) - points).max() < max(0.01, 2 * written.max_um)
