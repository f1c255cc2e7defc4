"""Small files written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from comir_batch.core.errors import ConfigError
from comir_batch.io.whole import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Clients of network file systems remember for a while, mostly under a minute, that a file was not there. Listing its
# folder makes them ask the server anew, so that a few seconds are plenty; a file that never comes costs no more.
_LAG_S = 10.0
_LOOK_EVERY_S = 0.2


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that a reader never meets half of it.

    The temporary name is always the same, so that what a killed writer left goes when the file is written again.
    """
    with _partial(path) as stream:
        stream.write(content)


@contextmanager
def _partial(path: Path) -> Iterator[BinaryIO]:
    """Open the temporary file that becomes the named one if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("wb") as stream:
        yield stream


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; what it cannot carry (odd file names) becomes backslash escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def csv_text(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([columns, *rows])
    return stream.getvalue()


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def remove_tree(folder: Path) -> None:
    """Remove a folder so that, killed midway, it leaves no half of it under its name."""
    removed = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder that a user named, with those above it.

    Raises
    ------
    ConfigError
        If that cannot be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror}. Choose another --out") from error


def size_mb(paths: Iterable[Path]) -> float:
    """Return the size in MB (10^6 bytes) of files, and of all files in folders; what is not there has none."""
    return sum(_size(file) for path in paths for file in _files(path)) / 1e6


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (path.joinpath(folder, name) for name in names)


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:  # a writer that was taken for dead has renamed it; a size is not worth a run
        return 0


def wait_until_seen(path: Path, seconds: float = _LAG_S) -> None:
    """Return once a file can be seen here that a task, perhaps on another machine, says it has written.

    After so many seconds it returns all the same; who reads the file then tells that it is missing.
    """
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        with suppress(OSError):
            list(path.parent.iterdir())
        time.sleep(_LOOK_EVERY_S)


def read_json(path: Path) -> Any:
    """Read JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write named arrays as .npz atomically; object arrays, which need pickles, are refused."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array as .npy atomically, without a copy of it in memory."""
    with _partial(path) as stream:
        np.save(stream, array, allow_pickle=False)


def map_array(path: Path) -> NDArray[Any]:
    """Open what `write_array` wrote; it is read from the file where it is looked at."""
    mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)
