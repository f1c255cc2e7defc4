"""Site profiles on this machine: the folders they lie in, how one is found by its name, how a new one is begun."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comir_batch.core.errors import ConfigError
from comir_batch.core.profile import load_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from comir_batch.core.config import ExecutionConfig, Section
    from comir_batch.core.profile import Profile

FOLDERS_VARIABLE = "COMIR_BATCH_PROFILES"
SYSTEM_FOLDER = Path("/etc/comir-batch/profiles")
TEMPLATE = "profile_template.toml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SINFO = ("sinfo", "--noheader", "--format=%P: %c cores, %m MB, gres %G, at most %l, nodes %D")


@dataclass(frozen=True, slots=True)
class Listed:
    """A profile in one of the folders.

    Attributes
    ----------
    name : str
        By which `find_profile` finds it.
    path : Path
        Its file.
    description : str
        As its file says.
    problem : str
        Why it cannot be used; empty if it can.
    """

    name: str
    path: Path
    description: str
    problem: str


def profile_folders() -> tuple[Path, ...]:
    """Return the folders that are searched for profiles, the first one first."""
    named = [Path(folder) for folder in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if folder]
    return (*named, user_folder(), SYSTEM_FOLDER)


def user_folder() -> Path:
    """Return the folder of the user's own profiles."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    home = configured if configured.is_absolute() else Path.home() / ".config"
    return home / "comir-batch" / "profiles"


def find_profile(name: str) -> Path:
    """Return the file of a profile.

    Parameters
    ----------
    name : str
        A path (with a slash, or ending in ``.toml``), or the name of a profile in one of the folders.

    Raises
    ------
    ConfigError
        If there is none; the message tells which there are and where was looked.
    """
    if "/" in name or name.endswith(".toml"):
        return _existing(Path(name))
    folders = profile_folders()
    found = next((path for path in _files(folders) if path.stem == name), None)
    if found is None:
        known = ", ".join(dict.fromkeys(path.stem for path in _files(folders))) or "no profile"
        searched = ", ".join(map(str, folders))
        raise ConfigError(
            f"there is no profile {name!r}; there is {known} in {searched}. "
            f"Begin one with `comir-batch profiles init NAME`"
        )
    return found


def site_profile(config: ExecutionConfig) -> Profile | None:
    """Return the profile of the cluster that a run goes to; None where it needs none.

    Raises
    ------
    ConfigError
        If it is missing or wrong, or SLURM is to be used and none was named; or if settings are given that have no say
        beside it.
    """
    if config.executor not in {"slurm", "attach"}:
        return None
    if config.profile:
        profile = load_profile(find_profile(config.profile))
        _refuse_what_it_says(config, profile)
        return profile
    if config.executor == "slurm":
        raise ConfigError("the executor slurm needs a site profile: give --profile NAME; see comir-batch profiles list")
    return None


def _refuse_what_it_says(config: ExecutionConfig, profile: Profile) -> None:
    network = "device of [gpu]" if profile.gpu else "[gpu] (there is none)"
    keys = {
        f"execution.device={config.device}": network if config.device not in {"auto", profile.device} else "",
        f"execution.workers={config.workers}": "jobs of [cpu] and [gpu]" if config.workers else "",
        f"execution.memory_gb={config.memory_gb:g}": "memory_gb of [cpu] and [gpu]" if config.memory_gb else "",
    }
    for setting, key in keys.items():
        if key:
            raise ConfigError(f"{setting} means nothing on a cluster with a profile: change {key} in {config.profile}")


def list_profiles() -> tuple[Listed, ...]:
    """Return every profile in the folders in the order of the search, also those that are hidden or broken."""
    first: dict[str, Path] = {}
    return tuple(_listed(path, first.setdefault(path.stem, path)) for path in _files(profile_folders()))


def begin_profile(name: str, folder: Path) -> Path:
    """Write a profile whose comments explain every setting, and return its file.

    Raises
    ------
    ConfigError
        If the name is not one for a file, the file exists, or the folder cannot be one.
    """
    if not _NAME.fullmatch(name) or name.endswith(".toml"):
        raise ConfigError(f"a profile cannot be called {name!r}; use letters, digits, '.', '_' and '-', without .toml")
    path = folder / f"{name}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"{folder} is not a folder; give another one by --out") from None
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write("\n".join([*_partition_lines(), _template()]))
    except FileExistsError:
        raise ConfigError(f"{path} exists; edit it, or choose another name") from None
    return path


def to_toml(settings: Section) -> str:
    """Return a profile, or the settings of a run, as TOML with every setting, defaults too."""
    values = settings.model_dump(mode="json", exclude_none=True, by_alias=True)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    blocks = [_lines({key: value for key, value in values.items() if key not in tables})]
    blocks += [f"[{name}]\n{_lines(table)}" for name, table in tables.items()]
    return "\n\n".join(blocks)


def _lines(values: Mapping[str, Any]) -> str:
    # The texts, numbers and lists of JSON are TOML's too.
    return "\n".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ConfigError(f"there is no profile {path}; `comir-batch profiles list` shows those that have a name")
    return path


def _files(folders: tuple[Path, ...]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.toml")) if path.is_file()]


def _listed(path: Path, first: Path) -> Listed:
    try:
        description = load_profile(path).description
    except ConfigError as error:
        return Listed(path.stem, path, "", f"broken: {error}")
    return Listed(path.stem, path, description, "" if path == first else f"hidden by {first}")


def _template() -> str:
    return resources.files("comir_batch.pipeline").joinpath(TEMPLATE).read_text(encoding="utf-8")


def _partition_lines() -> list[str]:
    """Return comments that name the partitions of the cluster that this machine belongs to; none without one."""
    try:
        told = subprocess.run(_SINFO, capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return ["# The partitions here, as sinfo tells them:", *(f"#   {line}" for line in told.splitlines()), "#"]
