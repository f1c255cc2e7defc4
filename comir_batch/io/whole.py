"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(path: Path, *, suffix_last: bool = False) -> Iterator[Path]:
    """Give a hidden name beside a file to write to; it gets the file's name at the end, and goes if that never comes.

    The content is on the disk before the name is, so that a power cut leaves no empty file under it.

    Parameters
    ----------
    path : Path
        The file; its folder must exist.
    suffix_last : bool
        Whether the hidden name ends as the file's does, for writers that choose the format by it.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}" if suffix_last else f".{path.name}.partial")
    try:
        yield partial
        _to_disk(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a hidden name beside a folder to make it under, likewise; what a killed writer left there goes first."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
