"""Renders templates to self-contained HTML: style, script and pictures inside, nothing fetched, all names escaped."""

from __future__ import annotations

import base64
import hashlib
import os
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from comir_batch.report import words


def render(template: str, **values: Any) -> str:
    """Return the page of a template; text that UTF-8 cannot carry (odd file names) is shown as backslash escapes."""
    return words.printable(_environment().get_template(template).render(**values))


def href(path: str) -> str:
    """Quote a relative path for a link; no path can become a scheme or leave its attribute."""
    return quote(os.fsencode(path))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("comir_batch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        href=href,
        number=words.number,
        sort_key=words.sort_key,
        duration=words.duration,
        memory=words.memory,
        size=words.size,
        times=words.times,
        described=words.describe,
    )
    environment.globals.update(asset=_asset, digest=_digest)
    return environment


def _asset(name: str) -> Markup:
    """Return a style or a script of ours, to stand in the page as it is."""
    loader = _environment().loader
    assert loader is not None  # noqa: S101  the environment above has one
    return Markup(loader.get_source(_environment(), name)[0])  # noqa: S704  our own file, no user text


def _digest(name: str) -> str:
    """Return the hash by which the page's policy allows this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode("ascii")
