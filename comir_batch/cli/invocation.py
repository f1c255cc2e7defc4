"""How a user calls this program, for what is printed as the next command."""

from __future__ import annotations

import os
import shlex


def container_image() -> str:
    """Return the Apptainer image that this runs in; empty outside of one."""
    return os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER") or ""


def invocation() -> str:
    """Return the words before a command's name."""
    image = container_image()
    return f"apptainer run {shlex.quote(image)}" if image else "comir-batch"
