"""Settings from the command line, laid over those of a file or of an earlier run."""

from __future__ import annotations

import copy
import tomllib
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from comir_batch.core.config import RunConfig


def overrides(options: Mapping[str, Any], assignments: Iterable[str] | None, base: Any = None) -> dict[str, Any]:
    """Return nested settings.

    Parameters
    ----------
    options : mapping
        Values of options by dotted key (``execution.workers``); None means that the option was not given.
    assignments : iterable of str or None
        ``key=value`` as given to ``--set``; they win. A value is TOML's where it parses as such, else text.
    base : dict or None
        Nested settings that both are laid over.

    Raises
    ------
    typer.BadParameter
        If an assignment has no key or no equals sign.
    """
    settings: dict[str, Any] = copy.deepcopy(base or {})
    for key, value in options.items():
        if value is not None:
            _put(settings, key, value)
    for assignment in assignments or ():
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{assignment!r} is not of the form section.key=value", param_hint="--set")
        _put(settings, key.strip(), _value(text.strip()))
    return settings


def require_cluster(profile: str | None, config: RunConfig) -> None:
    """Refuse a profile that was given where no cluster is used; one that settings name may wait for its executor.

    Raises
    ------
    typer.BadParameter
        If that was asked for.
    """
    executor = config.execution.executor
    if profile is not None and executor not in {"slurm", "attach"}:
        raise typer.BadParameter(
            f"the executor {executor} uses no profile: add --executor slurm", param_hint="--profile"
        )


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = settings.setdefault(section, {})
        if not isinstance(inner, dict):
            raise typer.BadParameter(f"{section!r} in {key!r} is a setting, not a section", param_hint="--set")
        settings = inner
    settings[name] = value


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
