"""A real Apptainer and the image that it builds; both take minutes the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import image
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def apptainer() -> Path:
    """The command; its folder, put on PATH, is what a cluster's module of it would be."""
    return image.apptainer_command()


@pytest.fixture(scope="session")
def sif(apptainer) -> Path:
    """The image of this checkout, with the CPU build of torch."""
    return image.build(apptainer)
