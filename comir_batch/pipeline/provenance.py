"""run.json: what is needed to make a run again."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any

import comir_batch
from comir_batch.execution.start import job_name
from comir_batch.pipeline.by_hand import read_by_hand
from comir_batch.pipeline.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.config import RunConfig
    from comir_batch.core.profile import Profile
    from comir_batch.pipeline.inspect import Inspection
    from comir_batch.pipeline.layout import Layout
    from comir_batch.pipeline.pair import Pair
    from comir_batch.pipeline.run import RunRequest

_PACKAGES = (
    *(
        "torch",
        "itk",
        "itk-elastix",
        "SimpleITK",
        "zarr",
        "tifffile",
        "imagecodecs",
        "openslide-python",
        "openslide-bin",
    ),
    *("opencv-python-headless", "numpy", "scipy", "dask", "distributed", "pydantic"),
)


# What differs between two calls of the same run.
_MOMENTARY = ("command", "started")


def write_run_json(
    request: RunRequest, inspection: Inspection, layout: Layout, profile: Profile | None, *, works: bool
) -> bool:
    """Write the resolved config, digests of the inputs, versions, command line and seeds.

    Parameters
    ----------
    request, inspection, layout, profile
        The run, and the site that it goes to, if any.
    works : bool
        Whether there is work to do; if there is none and nothing has changed, the file stays as it is.

    Returns
    -------
    bool
        Whether the file was written.
    """
    manifest = request.manifest.resolve()
    content = {
        "format": "comir-batch run",
        "version": comir_batch.__version__,
        "command": list(request.command),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "keep_work": request.keep_work,
        "skip_bad_rows": request.skip_bad_rows,
        "directory": str(layout.root),
        "manifest": {"path": str(manifest), "sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()},
        "config": request.config.model_dump(mode="json", by_alias=True),
        "config_digest": config_digest(request.config),
        "profile": None if profile is None else profile.model_dump(mode="json"),
        "seeds": {"register": request.config.register_.seed},
        "by_hand": {name: asdict(given) for name, given in read_by_hand(layout).items()},
        "pairs": [_pair(pair) for pair in inspection.pairs],
        "skipped_rows": [str(problem) for problem in inspection.problems],
        "versions": versions(),
        "host": {"name": platform.node(), "python": platform.python_version(), "system": platform.platform()},
    }
    same = layout.run_json.exists() and _lasting(read_json(layout.run_json)) == _lasting(content)
    if works or not same:
        write_json(layout.run_json, content)
    return works or not same


def driver_state(root: Path, dashboard: str) -> dict[str, Any]:
    """Return what others may want to know of the driver that runs: where it is, its dashboard and its jobs."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "dashboard": dashboard,
        "job_name": job_name(root),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def config_digest(config: RunConfig) -> str:
    """Return a digest of all settings."""
    return hashlib.sha256(config.model_dump_json(by_alias=True).encode()).hexdigest()[:16]


def _lasting(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in _MOMENTARY}


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "pair_id": pair.name,
        "fixed": {"path": str(pair.fixed.spec.path), "digest": pair.fixed.digest},
        "moving": {"path": str(pair.moving.spec.path), "digest": pair.moving.digest},
        "model": None if pair.model is None else pair.model.card.name,
        "weights_sha256": None if pair.model is None else pair.model.card.weights_sha256,
        "model_choice": pair.model_choice,
        "assumed": list(pair.assumed),
        "files": pair.file_digests,
    }
