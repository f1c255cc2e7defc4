"""Runs that several tests look at or go on from; each is made once."""

from __future__ import annotations

import shutil

import pytest
import runs


@pytest.fixture(scope="session")
def slides(tmp_path_factory):
    """Folder of a small real pair and its manifest."""
    folder = tmp_path_factory.mktemp("slides, with 'quotes' and ä")
    runs.make_slides(folder)
    runs.write_manifest(folder / "manifest.csv")
    return folder


@pytest.fixture(scope="session")
def truth(tmp_path_factory):
    """The motion between the two slides."""
    return runs.make_slides(tmp_path_factory.mktemp("again"))


@pytest.fixture(scope="session")
def undisturbed(slides, tmp_path_factory):
    """A whole run in one process, its intermediate results kept. Not to be changed: see `copied`."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    summary = runs.run_here(slides / "manifest.csv", out, export={"ome_tiff": True})
    assert summary.exit_code == 0, summary
    return out


@pytest.fixture
def copied(undisturbed, tmp_path):
    """A copy of the whole run, to go on from."""
    out = tmp_path / "copied"
    shutil.copytree(undisturbed, out)
    return out
