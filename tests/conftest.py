"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_models_of_the_user(tmp_path_factory):
    """No test sees the models that whoever runs it has added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMIR_BATCH_MODELS", str(tmp_path_factory.mktemp("models") / "none"))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real images: COMIR_BATCH_DATA, else ../shared/data beside the checkout; skips if there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("COMIR_BATCH_DATA", beside))
    if not (folder / "README.md").is_file():
        pytest.skip(f"real images are not at {folder}; set COMIR_BATCH_DATA")
    return folder


@pytest.fixture(scope="session")
def ndpi_pair(shared_data: Path) -> tuple[Path, Path]:
    """Two NDPI scans of one section, DAPI and TRITC, aligned within two pixels."""
    folder = shared_data / "tissue_dapi_tritc_ndpi"
    (dapi,), (tritc,) = folder.glob("*DAPI*.ndpi"), folder.glob("*TRITC*.ndpi")
    return dapi, tritc


@pytest.fixture(scope="session")
def svs_slide() -> Path:
    """A real Aperio scan that `make test` takes from the package index: COMIR_BATCH_SVS, else .venv/slides/."""
    beside = Path(__file__).resolve().parents[1] / ".venv" / "slides" / "CMU-1-Small-Region.svs"
    slide = Path(os.environ.get("COMIR_BATCH_SVS", beside))
    if not slide.is_file():
        pytest.skip(f"the Aperio slide is not at {slide}; `make test` fetches it")
    return slide
