"""A run as job scripts that a user submits: what `render` writes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import load_profile
from comir_batch.core.task import Resource
from comir_batch.execution.slurm.render import Rendering, render
from comir_batch.execution.slurm.script import Site, slots
from comir_batch.execution.start import job_name
from comir_batch.pipeline.files import read_json, write_json, write_text
from comir_batch.pipeline.folders import folders_read
from comir_batch.pipeline.layout import Layout
from comir_batch.pipeline.plan import make_plan
from comir_batch.pipeline.profiles import find_profile, to_toml
from comir_batch.pipeline.run import inspect_request
from comir_batch.representation.store import OWN_MODELS, own_models, settled

if TYPE_CHECKING:
    from comir_batch.core.config import RunConfig
    from comir_batch.core.profile import Profile
    from comir_batch.pipeline.plan import Plan

_CONFIG, _PROFILE, _ORIGIN = "config.toml", "profile.toml", "rendered.json"


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """A run to write scripts for.

    Attributes
    ----------
    manifest : Path
        The pairs.
    profile : str
        Name or path of the site's profile.
    out : Path
        Folder of the scripts.
    run_directory : Path
        Of the run.
    config : RunConfig
        Settings.
    options : tuple of str
        Of the command `run`, those that are no settings.
    skip_bad_rows : bool
        Run the good rows where others are bad.
    """

    manifest: Path
    profile: str
    out: Path
    run_directory: Path
    config: RunConfig
    options: tuple[str, ...] = ()
    skip_bad_rows: bool = False


def render_run(request: RenderRequest) -> Path:
    """Inspect the manifest and write scripts, settings and profile of a run; return the script that submits it.

    Raises
    ------
    ManifestError
        If rows are bad.
    ConfigError
        If the profile is wrong or its jobs are too small, or the folder has the scripts of another run.
    """
    path = find_profile(request.profile)
    profile = _usable(load_profile(path))
    out, layout = request.out.resolve(), Layout(request.run_directory.resolve())
    origin = {"manifest": str(request.manifest.resolve()), "run": str(layout.root)}
    _require_free(out, origin)
    pairs = inspect_request(request.manifest, request.config, skip_bad_rows=request.skip_bad_rows).pairs
    _require_memory(make_plan(pairs, _attached(request.config, layout, path), layout.root), profile)
    own = [folder for folder in (own_models(),) if folder.is_dir()]
    site = Site(profile, layout.cluster, (request.manifest.resolve().parent, out, *own, *folders_read(pairs)))
    words = (origin["manifest"], "--out", str(layout.root), "--config", str(out / _CONFIG), *request.options)
    # The driver chooses models anew, where neither the home folder nor the environment need be those of here.
    known = tuple((OWN_MODELS, str(folder)) for folder in own)
    scripts = render(Rendering(site, job_name(layout.root), words, request.config.execution.dashboard, known))
    scripts[_PROFILE] = to_toml(profile) + "\n"
    scripts[_CONFIG] = to_toml(_attached(request.config, layout, out / _PROFILE)) + "\n"
    for name, text in scripts.items():
        write_text(out / name, text)
    write_json(out / _ORIGIN, origin)
    for folder in (layout.worker_logs, layout.cluster.farewell("any").parent):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(layout.cluster.rendered, {"folder": str(out)})
    return out / "submit.sh"


def _usable(profile: Profile) -> Profile:
    image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if image and not profile.image and not profile.python:
        raise ConfigError(f"the profile names neither image nor python, and this runs in one: set image = {image!r}")
    return profile


def _require_free(out: Path, origin: dict[str, str]) -> None:
    try:
        earlier = read_json(out / _ORIGIN)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(f"{out} is a file; choose another --out") from None
    if earlier != origin:
        raise ConfigError(
            f"{out} has the scripts that run {earlier['manifest']} into {earlier['run']}; choose another --out"
        )


def _attached(config: RunConfig, layout: Layout, profile: Path) -> RunConfig:
    execution = {"executor": "attach", "profile": str(profile), "scheduler_file": str(layout.cluster.scheduler)}
    model = settled(config.model, Path())  # a folder is one wherever the driver's job starts
    return config.model_copy(update={"model": model, "execution": config.execution.model_copy(update=execution)})


def _require_memory(plan: Plan, profile: Profile) -> None:
    for stage in plan.stages:
        jobs = profile.kinds()[Resource(stage.resource)]
        share_mb = jobs.memory_mb // slots(jobs)
        if stage.memory_mb > share_mb:
            raise ConfigError(
                f"{stage.stage} needs up to {stage.memory_mb} MB and a {stage.resource} worker would have {share_mb} "
                f"MB for a task. Set memory_gb of [{stage.resource}] to {-(-stage.memory_mb * slots(jobs) // 1024)} in "
                "the profile, for rendered workers do not grow to max_memory_gb, or lower register.max_memory_gb"
            )
