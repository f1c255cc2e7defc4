"""Regions that blocks are looked for in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from comir_batch.core.config import RegisterConfig
from comir_batch.core.errors import TaskError
from comir_batch.core.geometry import Grid, Region
from comir_batch.core.transform import Affine, Composite
from comir_batch.pipeline import refinement
from comir_batch.pipeline.files import write_arrays
from comir_batch.pipeline.refinement import Refinement

GRID = Grid(128, 128, 1.0, 1.0)
STILL = Composite((Affine(np.eye(2), np.zeros(2)),))


@pytest.mark.parametrize("tissue", [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0 / 128**2), (0.0, 0.0)])
@pytest.mark.parametrize("view", ["comir", "raw"])
def test_tissue_on_one_slide_alone_is_laid_on_nothing(tissue, view, monkeypatch, tmp_path):
    """Representations of several channels have no principal axis there."""
    sides = [SimpleNamespace(working=SimpleNamespace(grid=GRID), share=share) for share in tissue]

    def covered(side, grid):
        return np.arange(grid.width * grid.height).reshape(grid.shape) < side.share * grid.width * grid.height

    def pixels(_side, region, _view):
        return np.random.default_rng(0).random((3, *region.shape)).astype(np.float32)

    monkeypatch.setattr(refinement, "_tissue", covered)
    monkeypatch.setattr(refinement, "_pixels", pixels)
    monkeypatch.setattr(refinement, "_held_out", lambda _work, grid: np.zeros(grid.shape, bool))
    work = Refinement(tmp_path, *sides, 1, RegisterConfig(block_side=32, block_reach=16))
    fixed, moving = refinement._laid(work, Region(32, 32, 96, 96), view, STILL)
    assert fixed[0].shape == fixed[1].shape == (64, 64)
    assert moving[0].shape == moving[1].shape == (96, 96)
    assert fixed[1].all() == (tissue[0] == 1)
    assert moving[1].any() == (tissue == (1.0, 1.0))
    assert np.isfinite(fixed[0]).all()
    assert np.isfinite(moving[0]).all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_a_damaged_region_is_told_of(share, tmp_path):
    path = tmp_path / "region-3.npz"
    write_arrays(path, offsets=np.zeros((16, 16, 2)), tried=np.ones((16, 16), bool))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(TaskError, match=r"region-3\.npz, .* is damaged; delete it\. The same command registers"):
        refinement._found(path)
