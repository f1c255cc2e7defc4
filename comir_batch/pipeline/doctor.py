"""Whether this installation works, and whether a site is as its profile says."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import comir_batch
from comir_batch.core.check import failed, ok, warning
from comir_batch.core.errors import ConfigError, ModelError
from comir_batch.core.profile import load_profile
from comir_batch.execution.files import ClusterFiles
from comir_batch.execution.slurm.doctor import check_container, check_node, check_slurm
from comir_batch.execution.slurm.script import Site
from comir_batch.pipeline.packages import require_computing
from comir_batch.pipeline.profiles import find_profile
from comir_batch.representation.device import resolve_device
from comir_batch.representation.store import list_models, unreadable_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from comir_batch.core.check import Check

_LITTLE_GB = 5.0
# What is lost without them.
_OPTIONAL = {
    "openslide": "vendors' slide formats: pip install 'comir-batch[driver]'",
    "dask_jobqueue": "--executor slurm: pip install 'comir-batch[driver]'",
    "cryptography": "--executor slurm: pip install 'comir-batch[driver]'",
    "pylibCZIrw": "CZI slides: pip install 'comir-batch[czi]'",
}


def check_installation() -> Iterator[Check]:
    """Yield what this installation has, and lacks."""
    yield ok("comir-batch", f"{comir_batch.__version__}, Python {platform.python_version()}, {sys.prefix}")
    try:
        require_computing()
        yield ok("packages", "all that computing needs")
    except ConfigError as error:
        yield warning("packages", str(error))
    for package, use in _OPTIONAL.items():
        if importlib.util.find_spec(package) is None:
            yield warning("packages", f"no {package}, which is needed for {use}")
    yield _temporary_space()
    yield _models()
    if resolve_device("auto") == "cuda":
        yield ok("CUDA", "networks run on the GPU")
    else:
        yield ok("CUDA", "no device is visible here: networks run on the CPU")


def check_site(name: str, wait_s: float) -> Iterator[Check]:
    """Yield whether a site is as its profile says.

    Parameters
    ----------
    name : str
        Name or path of the profile.
    wait_s : float
        How long a job of each kind, which looks around on a node, may take; 0 to submit none.
    """
    try:
        path = find_profile(name)
        profile = load_profile(path)
    except ConfigError as error:
        yield failed("profile", str(error))
        return
    yield ok("profile", str(path))
    # In the current folder, which nodes see as they see a run; /tmp they do not.
    with tempfile.TemporaryDirectory(prefix=".comir-batch-doctor-", dir=Path.cwd()) as folder:
        root = Path(folder).resolve()
        site = Site(profile, ClusterFiles(root, root, root), ())
        of_slurm = list(check_slurm(site))
        yield from of_slurm
        yield from check_container(site)
        if wait_s and all(check.state != "failed" for check in of_slurm):
            for kind in profile.kinds():
                yield from check_node(site, kind, wait_s)


def _temporary_space() -> Check:
    folder = tempfile.gettempdir()
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < _LITTLE_GB:
        return warning("temporary files", f"{folder} has {free_gb:.1f} GB free; make room, or set TMPDIR")
    return ok("temporary files", f"{folder}, {free_gb:.0f} GB free")


def _models() -> Check:
    try:
        names = [card.name for card in list_models()]
    except ModelError as error:
        return failed("models", str(error))
    if unread := unreadable_models():
        return warning("models", f"{', '.join(names)}; left out: {'; '.join(unread.values())}")
    return ok("models", ", ".join(names)) if names else failed("models", "none is installed; install comir-batch anew")
