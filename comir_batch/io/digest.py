"""Identity of a slide's file: what a stage's fingerprint records of what it read."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING

from comir_batch.core.errors import UnreadableSlideError
from comir_batch.core.passing import passing_errno

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_WHOLE = 64 * 2**20
_SAMPLES, _SAMPLE = 64, 64 * 2**10


def slide_digest(path: Path, others: Iterable[Path] = ()) -> str:
    """Return the identity of a file or of an OME-Zarr folder, 64 hexadecimal digits; its name and place do not count.

    A file of at most 64 MiB is hashed whole (SHA-256), so a copy is the same slide. Of a larger file, size,
    modification time (ns) and 64 evenly spaced samples of 64 KiB, first and last byte included, are hashed: reading
    100 GB for a name would take minutes. Of a folder, the relative name, size and modification time of every file, and
    the contents of its metadata files (zarr.json, .zattrs, .zarray, .zgroup), are hashed. The folder beside a .mrxs
    file, which has its pixels, counts too.

    Parameters
    ----------
    path : Path
        The slide.
    others : iterable of Path
        Further files in which it keeps pixels (`SlideReader.files`).

    Raises
    ------
    UnreadableSlideError
        If it is missing or cannot be read.
    """
    try:
        itself = _folder(path) if path.is_dir() else chain(_file(path), *map(_folder, _companions(path)))
        digest = hashlib.sha256()
        for piece in chain(itself, *map(_file, others)):
            digest.update(piece)
    except OSError as error:
        if passing_errno(error):
            raise
        raise UnreadableSlideError(f"{path}: {error.strerror}. Check the path") from error
    return digest.hexdigest()


def _companions(path: Path) -> list[Path]:
    """Return the folders in which a slide of several files keeps its pixels: MRXS."""
    folder = path.with_suffix("")
    return [folder] if path.suffix.lower() == ".mrxs" and folder.is_dir() else []


def _file(path: Path) -> Iterator[bytes]:
    state = path.stat()
    with path.open("rb") as stream:
        if state.st_size <= _WHOLE:
            while piece := stream.read(2**20):
                yield piece
            return
        yield f"{state.st_size} {state.st_mtime_ns}".encode()
        for index in range(_SAMPLES):
            stream.seek((state.st_size - _SAMPLE) * index // (_SAMPLES - 1))
            yield stream.read(_SAMPLE)


def _folder(path: Path) -> Iterator[bytes]:
    for file in sorted(path.rglob("*")):
        if file.is_file():
            state = file.stat()
            yield f"{file.relative_to(path).as_posix()}\0{state.st_size} {state.st_mtime_ns}\0".encode()
            if file.name in ("zarr.json", ".zattrs", ".zarray", ".zgroup"):
                yield file.read_bytes()
