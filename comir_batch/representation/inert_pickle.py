"""Reads files of ``torch.save`` without running anything that stands in them.

A pickle names functions and classes, and asks its reader to call them. Here nothing that it names is ever looked up:
each name becomes a `Record`, which keeps what it was called with. Tensors are made from the records afterwards.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from comir_batch.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# First pickle of a file of torch before 1.6 (and of its `_use_new_zipfile_serialization=False`).
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
}
_TENSORS = {("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2")}
_PARAMETERS = {("torch._utils", name) for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")}
_DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, ArithmeticError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, NotImplementedError, RecursionError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class Record(dict[Any, Any]):
    """What a pickle wanted made by a class or function: its name, its arguments, its state and its items.

    Attributes
    ----------
    origin : (str, str)
        Module and name of the class or function, of the record's own class.
    args : tuple
        What it was called with.
    state : object
        What its attributes were to be.
    """

    origin: ClassVar[tuple[str, str]] = ("", "")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **_named: Any) -> Record:  # noqa: PYI034  the class is made while reading
        """Keep the arguments, of whichever way of making an object the pickle uses."""
        made = super().__new__(cls)
        made.args, made.state = args, {}
        return made

    def __init__(self, *_args: Any, **_named: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Keep the state, apart from the record's own attributes."""
        self.state = state

    __hash__ = object.__hash__  # type: ignore[assignment]  # records may be keys of the pickle's dictionaries


class _Storage:
    """Numbers of a file that tensors are views of."""

    def __init__(self, kind: Any, elements: int) -> None:
        self.dtype, self.elements, self.data = _DTYPES[kind.origin[1]], elements, b""

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


class _Reader(pickle.Unpickler):
    """Looks nothing up."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        return type(name, (Record,), {"origin": (module, name)})

    def persistent_load(self, pid: Any) -> Any:
        """Return the storage, or the class of a module with its source code in the file, that an entry refers to."""
        if pid[0] == "module":
            return pid[1]
        kind, _, key, _, elements, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise pickle.UnpicklingError("an entry that is no whole storage")
        return self.storages.setdefault(str(key), _Storage(pid[1], int(elements)))


def read_checkpoint(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, of either format, with a `Record` for all that is not plain data.

    Raises
    ------
    ModelError
        If it cannot be read, or is damaged or no such file.
    """
    try:
        with path.open("rb") as file:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_stream(file)
    except OSError as error:
        raise ModelError(f"cannot read the checkpoint {path}: {error.strerror}; check the path") from error
    except _DAMAGED as error:
        raise ModelError(f"{path} is no checkpoint of torch, or is damaged; fetch or save it again") from error


def tensor(record: Any) -> torch.Tensor | None:
    """Return the tensor or parameter that a record stands for, with memory of its own; None if it is no tensor.

    Raises
    ------
    ModelError
        If the record asks for more than the file has.
    """
    while isinstance(record, Record) and record.origin in _PARAMETERS and record.args:
        record = record.args[0]
    if not isinstance(record, Record) or record.origin not in _TENSORS:
        return None
    try:
        storage, offset, size, stride = record.args[:4]
        if math.prod(size) > storage.elements:
            raise ValueError("a tensor that repeats its numbers")
        flat = torch.frombuffer(bytearray(storage.data), dtype=storage.dtype)
        return flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)
    except _DAMAGED as error:
        raise ModelError("a tensor of the checkpoint is damaged; fetch or save it again") from error


def _read_zip(file: io.BufferedReader) -> Any:
    with zipfile.ZipFile(file) as archive:
        (main,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = main.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and _entry(archive, f"{folder}byteorder") != b"little":
            raise pickle.UnpicklingError("numbers of a machine that writes the highest byte first")
        reader = _Reader(io.BytesIO(_entry(archive, main)))
        content = reader.load()
        _fill(reader, file, lambda key, storage: _entry(archive, f"{folder}data/{key}", storage.nbytes))
    return content


def _entry(archive: zipfile.ZipFile, name: str, nbytes: int | None = None) -> bytes:
    """Read an entry of the length that it should have; torch compresses none, so that none is larger than its file."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or (nbytes is not None and info.file_size != nbytes):
        raise pickle.UnpicklingError("an entry that is compressed or of another length")
    return archive.read(info)


def _read_stream(file: io.BufferedReader) -> Any:
    """Read the older format: magic, protocol, machine, content and keys as pickles, then each storage's numbers."""
    file.seek(0)
    if _Reader(file).load() != _MAGIC:
        raise pickle.UnpicklingError("another file")
    for _ in ("protocol", "machine"):
        _Reader(file).load()
    reader = _Reader(file)
    content = reader.load()
    keys = [str(key) for key in _Reader(file).load()]
    reader.storages = {key: reader.storages[key] for key in keys}

    def following(_: str, storage: _Storage) -> bytes:
        if int.from_bytes(file.read(8), "little") != storage.elements:
            raise pickle.UnpicklingError("a storage of another length")
        return file.read(storage.nbytes)

    _fill(reader, file, following)
    return content


def _fill(reader: _Reader, file: io.BufferedReader, numbers: Callable[[str, _Storage], bytes]) -> None:
    """Give each storage its numbers; together they are no longer than the file."""
    if sum(storage.nbytes for storage in reader.storages.values()) > os.fstat(file.fileno()).st_size:
        raise pickle.UnpicklingError("the file is cut short")
    for key, storage in reader.storages.items():
        storage.data = numbers(key, storage)
        if len(storage.data) != storage.nbytes:
            raise pickle.UnpicklingError("the file is cut short")
