"""elastix' process where it cannot even load; what it does once loaded is tested with real requests elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from comir_batch.core.errors import RegistrationError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Composite
from comir_batch.registration import elastix_process
from comir_batch.registration.elastix_process import ElastixProcess, ElastixRequest
from comir_batch.registration.images import RegistrationImage

GRID = Grid(8, 8, 1.0, 1.0)
IMAGE = RegistrationImage(np.zeros(GRID.shape, np.float32), np.ones(GRID.shape, dtype=bool), GRID)


def fails(folder, monkeypatch, library, text):
    """Return the child's error, and whether a child is left, where a library is this text."""
    (folder / f"{library}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    process = ElastixProcess(threads=1)
    with pytest.raises(RegistrationError) as error:
        process.register(ElastixRequest(IMAGE, IMAGE, (), Composite(), folder / "work", 300.0))
    return str(error.value), process.pid


@pytest.mark.parametrize("library", ["itk", "numpy"])
def test_a_load_that_stalls_is_ended_and_told(library, tmp_path, monkeypatch):
    monkeypatch.setattr(elastix_process, "LOAD_LIMIT_S", 0.5)
    message, left = fails(tmp_path, monkeypatch, library, "import time; time.sleep(500)")
    assert "cannot start elastix: loading itk took longer than 0.5 s" in message
    assert left is None


def test_a_load_that_fails_is_told_and_not_mistaken_for_a_child_that_is_ready(tmp_path, monkeypatch):
    message, left = fails(tmp_path, monkeypatch, "itk", "raise ImportError('no itk here')")
    assert "cannot start elastix: no itk here; is itk-elastix installed here?" in message
    assert left is None
