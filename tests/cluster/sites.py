"""The tests' SLURM as a site."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from comir_batch.core.profile import Profile
from comir_batch.pipeline.profiles import to_toml

if TYPE_CHECKING:
    from pathlib import Path

# What its fake GPUs can do is nothing, and what its jobs may have is what a small machine has.
SITE = {
    "description": "four virtual nodes on this machine",
    "python": sys.executable,
    "interface": "lo",
    "driver_host": "127.0.0.1",
    "poll_s": 2,
    "cpu": {
        "partition": "cpu",
        "cpus": 1,
        "memory_gb": 3,
        "max_memory_gb": 6,
        "walltime": "10",
        "jobs": 2,
        "idle_s": 60,
    },
    "gpu": {
        "partition": "gpu",
        "gres": "gpu:1",
        "cpus": 1,
        "memory_gb": 3,
        "walltime": "10",
        "jobs": 1,
        "idle_s": 5,
        "device": "cpu",
    },
}


def write_profile(path: Path, **settings: object) -> Path:
    """Write a profile; the settings replace those above, in `cpu` and `gpu` one by one; ``gpu=None`` is no GPUs."""
    sections = {kind: {**SITE[kind], **(settings.get(kind) or {})} for kind in ("cpu", "gpu")}
    values = {**SITE, **settings, **sections}
    if "gpu" in settings and settings["gpu"] is None:
        values["gpu"] = None
    path.write_text(to_toml(Profile.model_validate(values)) + "\n", encoding="utf-8")
    return path
