"""GeoJSON annotations as QuPath writes them, feature after feature: memory does not grow with their number."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from comir_batch.core.errors import UserError
from comir_batch.io.geojson_features import count, lines_of, without
from comir_batch.io.json_stream import JsonStream
from comir_batch.io.whole import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.io.geojson_features import Feature, Frame, Line

_BATCH_FEATURES, _BATCH_POINTS = 2048, 65536


@dataclass(slots=True)
class Copied:
    """How many features were read, and how many left out because a point of them has no place."""

    features: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Copying:
    """From which coordinates to which, and what is done to the lines.

    Attributes
    ----------
    source, target : Frame
        Of the file that is read, and of the one that is written.
    change : callable
        Takes the points of some lines, ``(N, 2)`` in µm each, and whether edges join them; returns as many lines of
        ``(M, 2)``, with NaN for a point that has no place.
    check : callable
        Takes what was copied, before the file gets its name; what it raises leaves no file.
    """

    source: Frame
    target: Frame
    change: Callable[[list[tuple[NDArray[np.float64], bool]]], list[NDArray[np.float64]]]
    check: Callable[[Copied], None]


def copy_geojson(path: Path, out: Path, copying: Copying) -> Copied:
    """Write GeoJSON with other lines; everything else, properties foremost, stays as it is.

    Parameters
    ----------
    path, out : Path
        `.geojson` or `.json`, or one of these and `.gz`; a FeatureCollection, a list of features or one feature. `out`
        appears whole at the end, by a rename. Members named `bbox`, which would not be true any more, go.
    copying : Copying
        What is done.

    Returns
    -------
    Copied
        Children are counted too; those of a feature that is left out go with it.

    Raises
    ------
    UserError
        If the file is no GeoJSON, or a feature has a geometry of another kind.
    """
    for name in (path, out):
        _require_name(name)
    copied = Copied()
    with whole_file(out) as partial:
        with _opened(path, path, "r") as text, _opened(out, partial, "w") as written:
            _Copier(path, JsonStream(text), written, _Batch(written, copying, copied)).copy()
        copying.check(copied)
    return copied


def _require_name(path: Path) -> None:
    if not path.name.lower().removesuffix(".gz").endswith((".geojson", ".json")):
        raise UserError(f"{path}: not GeoJSON by its name. Give a .geojson or a .geojson.gz")


@contextmanager
def _opened(name: Path, path: Path, mode: str) -> Iterator[TextIO]:
    """Open a text, packed if its name says so; the first to read turns what is wrong into a message."""
    encoding = "utf-8-sig" if mode == "r" else "utf-8"
    packed = name.name.lower().endswith(".gz")
    try:
        with (gzip.open if packed else open)(path, f"{mode}t", encoding=encoding) as text:
            yield cast("TextIO", text)
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{name}: damaged, or not packed as its name says. Export it again") from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{name}: {error.strerror}. Check the path") from error


@dataclass(slots=True)
class _Batch:
    """Features on their way: their lines are changed many at a time."""

    out: TextIO
    copying: Copying
    copied: Copied
    features: list[Feature] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    points: int = 0
    separator: str = "\n"

    def add(self, feature: Feature, lines: list[Line]) -> None:
        """Take a feature and its lines, and write all of them once there are many."""
        self.features.append(feature)
        self.lines += lines
        self.points += sum(len(line.coordinates) for line in lines)
        if len(self.features) >= _BATCH_FEATURES or self.points >= _BATCH_POINTS:
            self.flush()

    def flush(self) -> None:
        """Change and write the features at hand, a line of text each."""
        lines = [(self.copying.source.to_um(line.coordinates), line.joined) for line in self.lines]
        lost = set()
        for line, points in zip(self.lines, self.copying.change(lines), strict=True):
            if np.isnan(points).any():
                lost.add(id(line.feature))
            else:
                line.replace(self.copying.target.from_um(points))
        self.copied.features += count(self.features)
        kept, gone = without(self.features, lost)
        self.copied.lost += gone
        for feature in kept:
            self.out.write(f"{self.separator}{_dumped(feature)}")
            self.separator = ",\n"
        self.features, self.lines, self.points = [], [], 0


@dataclass(slots=True)
class _Copier:
    """Walks through a file."""

    path: Path
    text: JsonStream
    out: TextIO
    batch: _Batch
    number: int = 0

    def copy(self) -> None:
        try:
            if self.text.take("["):
                self._array()
            else:
                self._object()
            self.text.end()
        except UnicodeDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: not GeoJSON: {error}. Export it again") from error
        self.out.write("\n")

    def _object(self) -> None:
        """Copy a collection with whatever stands before and after its features, or make one of a single feature."""
        self.text.expect("{")
        members: dict[str, Any] = {}
        has_features = False
        for _ in self.text.items("}"):
            name = self.text.value()
            self.text.expect(":")
            if name == "features":
                self.text.expect("[")
                self._begin(members)
                self._array()
                members, has_features = {}, True
            else:
                members[name] = self.text.value()
        if not has_features:
            self._one(members)
            members = {}
        self.out.write("".join(f", {member}" for member in _lasting(members)) + "}")

    def _begin(self, members: dict[str, Any]) -> None:
        self.out.write("{" + "".join(f"{member}, " for member in _lasting(members)) + '"features": ')

    def _one(self, feature: Feature) -> None:
        if feature.get("type") != "Feature":
            raise ValueError("it has no features")
        self._begin({"type": "FeatureCollection"})
        self.out.write("[")
        self._add(feature)
        self._end()

    def _array(self) -> None:
        self.out.write("[")
        for _ in self.text.items("]"):
            self._add(self.text.value())
        self._end()

    def _add(self, feature: Feature) -> None:
        self.number += 1
        try:
            lines = list(lines_of(feature))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"number {self.number} is no feature") from error
        except ValueError as error:
            raise ValueError(f"feature {self.number}: {error}") from error
        self.batch.add(feature, lines)

    def _end(self) -> None:
        self.batch.flush()
        self.out.write("\n]")


def _lasting(members: dict[str, Any]) -> list[str]:
    """Return members as text, without what is not true of other lines."""
    return [f"{_dumped(name)}: {_dumped(value)}" for name, value in members.items() if name != "bbox"]


def _dumped(value: Any) -> str:
    """Return JSON, and NaN where QuPath has written one for a measurement."""
    return json.dumps(value, ensure_ascii=False)
