"""Settings from where users write them: defaults < TOML file < command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from comir_batch.core.config import RunConfig
from comir_batch.core.errors import ConfigError, wrong_fields


def load_config(path: Path | None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """Read a TOML file and lay overrides (nested dicts of the same shape) over it.

    Paths are made absolute, for a later command may be given elsewhere: those in the file are relative to its folder,
    those of overrides to the working directory. A model or a profile is a path if it has a slash (a profile, too, if
    it ends in .toml), else a name.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or a key or value is wrong; the message names each.
    """
    try:
        values = {} if path is None else anchored(read_toml(path), path.parent)
        return RunConfig.model_validate(merged(values, anchored(overrides or {}, Path())))
    except ValidationError as error:
        raise ConfigError(f"wrong settings: {wrong_fields(error, values=True)}") from error


def read_toml(path: Path, what: str = "config file") -> dict[str, Any]:
    """Return the settings in a file, which errors call what it is.

    Raises
    ------
    ConfigError
        If it is missing or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the {what} {path} is not valid TOML: {error}") from error


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay nested settings over others of the same shape."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def anchored(values: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return nested settings whose paths are absolute; what is of a wrong type is left to the check."""

    def absolute(text: Any, *, is_path: bool = True) -> Any:
        return str((base / Path(text).expanduser()).absolute()) if text and is_path else text

    result = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    execution, register = (
        section if isinstance(section := result.get(name), dict) else {} for name in ("execution", "register")
    )
    for section, key in ((result, "model"), (execution, "profile"), (execution, "scheduler_file")):
        if isinstance(text := section.get(key), str):
            section[key] = absolute(text, is_path=key == "scheduler_file" or "/" in text or text.endswith(".toml"))
    if isinstance(files := register.get("parameter_files"), list):
        register["parameter_files"] = [absolute(file, is_path="\n" not in file) for file in map(str, files)]
    return result
