"""What a run took for each second that was predicted for it: a site's machines are not those of the constants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from comir_batch.core.errors import RunDirectoryError
from comir_batch.pipeline import cost
from comir_batch.pipeline.files import read_json
from comir_batch.pipeline.layout import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.pipeline.job import Device


class Rate(NamedTuple):
    """CPU time, and time of workers, for each predicted second of CPU time."""

    cpu: float
    workers: float


def read_rates(run_directory: Path) -> dict[tuple[str, Device], Rate]:
    """Return the rates of a run's stages, by stage and device; those of which nothing is finished are left out.

    Raises
    ------
    RunDirectoryError
        If it is no run directory, its costs.json is none, or what it took was compared with other constants.
    """
    path = Layout(run_directory.resolve()).costs
    if not path.is_file():
        raise RunDirectoryError(f"{run_directory} has no {path.name}. Name the directory of a run that has its report")
    content = _costs(path)
    if content["revision"] != cost.REVISION:
        raise RunDirectoryError(
            f"{path} is of revision {content['revision']} of the predictions, and this version has {cost.REVISION}. "
            "Name a run of this version"
        )
    return {
        (stage["stage"], stage["device"]): _rate(stage)
        for stage in content["stages"]
        if stage["predicted"]["cpu_s"] > 0 and stage["taken"]["worker_s"] > 0
    }


def _costs(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != cost.FORMAT:
        raise RunDirectoryError(f"{path} is damaged, or none of ours. Run the same command again, which writes it anew")
    return content


def _rate(stage: dict[str, dict[str, float]]) -> Rate:
    predicted, taken = stage["predicted"]["cpu_s"], stage["taken"]
    return Rate(taken["cpu_s"] / predicted, taken["worker_s"] / predicted)
