"""An index of slides: a folder with what queries are compared with, and the representations that it is made of.

::

    index.json          version, model, slides
    cells/ID.npz        cells of a slide's representation
    signatures/ID.npy   signatures of its discs, for the shortlist of a large index
    run/                a run directory, as far as the represent stage
"""

from __future__ import annotations

import zlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import BadZipFile

import numpy as np

from comir_batch.core.errors import ConfigError, ModelError
from comir_batch.core.geometry import Grid
from comir_batch.core.slide import SlideSpec
from comir_batch.pipeline.files import map_array, read_arrays, read_json, write_array, write_arrays, write_json
from comir_batch.pipeline.representing import (
    RepresentedSlide,
    RepresentRequest,
    SlideRow,
    inspect_slides,
    represent_slides,
)
from comir_batch.representation.store import Model, find_model
from comir_batch.retrieval.cells import CELL, Cells, read_cells
from comir_batch.retrieval.signatures import signatures_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from comir_batch.core.config import RunConfig
    from comir_batch.core.events import Subscriber
    from comir_batch.execution.stop import StopRequest

FORMAT, VERSION = "comir-batch index", 2
_DAMAGES = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)
"""What reading a file raises that is missing or was cut off."""


@dataclass(frozen=True, slots=True)
class IndexedSlide:
    """A slide of an index.

    Attributes
    ----------
    name, modality : str
        As the table named it.
    spec : SlideSpec
        How to open it.
    digest : str
        Stands for its content.
    represented : RepresentedSlide
        Its representation.
    mask : Path or None
        What counted as its tissue, where it was not found on it.
    """

    name: str
    modality: str
    spec: SlideSpec
    digest: str
    represented: RepresentedSlide
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Index:
    """What an index holds.

    Attributes
    ----------
    folder : Path
        Where it lies.
    model : Model
        Whose representations they are.
    slides : tuple of IndexedSlide
        In the order in which they came.
    """

    folder: Path
    model: Model
    slides: tuple[IndexedSlide, ...]

    @classmethod
    def open(cls, folder: Path, model: Model | None = None) -> Self:
        """Open an index.

        Parameters
        ----------
        folder : Path
            Of the index.
        model : Model or None
            Which it must be of; by default the one that it names.

        Raises
        ------
        ConfigError
            If it is no index, a damaged one, or one of another version.
        ModelError
            If the model is another one, or is not there any more.
        """
        path = _json(folder)
        if not path.is_file():
            raise ConfigError(f"{folder} is not an index: it has no index.json. Make one with comir-batch index")
        content = _content(path)
        found = (content.get("format"), content.get("version"), content.get("cell"))
        if found != (FORMAT, VERSION, CELL):
            raise ConfigError(f"{folder} is an index of version {found[1]}, this reads {VERSION}; make it anew")
        known = model or _model(content["model"])
        if known.card.weights_sha256 != content["model"]["weights_sha256"]:
            raise ModelError(
                f"the index {folder} is of the model {content['model']['name']}, weights "
                f"{content['model']['weights_sha256'][:12]}, not of {known.card.name}, weights "
                f"{known.card.weights_sha256[:12]}; make another index, or name that model"
            )
        root = folder.resolve()
        try:
            return cls(root, known, tuple(_slide(root, each) for each in content["slides"]))
        except (KeyError, TypeError) as error:
            raise _damaged(path) from error

    def cells(self, slide: IndexedSlide) -> Cells:
        """Load a slide's cells; raises ConfigError if they are not there whole."""
        path = _cells(self.folder, slide.name)
        try:
            arrays = read_arrays(path)
            return Cells(arrays["values"].astype(np.float32), arrays["weight"].astype(np.float32))
        except _DAMAGES as error:
            raise _missing(path, slide) from error

    def signatures(self, slide: IndexedSlide) -> NDArray[np.int8]:
        """Open the signatures of a slide's discs, ``(rows, columns, L)``; read where they are looked at.

        Raises ConfigError if they are not there whole.
        """
        path = _signatures(self.folder, slide.name)
        try:
            return map_array(path)
        except _DAMAGES as error:
            raise _missing(path, slide) from error

    def save(self) -> None:
        """Write index.json; it appears whole."""
        card = self.model.card
        content = {
            "format": FORMAT,
            "version": VERSION,
            "cell": CELL,
            "model": {"name": card.name, "folder": str(self.model.folder), "weights_sha256": card.weights_sha256},
            "slides": [_record(self.folder, slide) for slide in self.slides],
        }
        write_json(_json(self.folder), content)


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """What to index.

    Attributes
    ----------
    table : Path
        The CSV that the rows are from.
    rows : tuple of SlideRow
        The slides; those that the index has already are not made again.
    only : bool
        Whether slides that have no row leave the index.
    """

    table: Path
    rows: tuple[SlideRow, ...]
    model: Model
    folder: Path
    config: RunConfig
    command: tuple[str, ...] = ()
    only: bool = False


def build_index(request: IndexRequest, subscriber: Subscriber, stop: StopRequest) -> Index:
    """Make an index, or add slides to one.

    Raises
    ------
    ManifestError
        With all that is wrong with the slides.
    ConfigError, ModelError
        If the folder holds something else, or another model's index.
    StoppedError, NoWorkersError
        From the executor; the same call goes on.
    """
    _require_one_channel(request.model)
    index = _begun(request)
    asked = RepresentRequest(
        request.table, request.rows, request.model, index.folder / "run", request.config, request.command
    )
    digests = {pair.name: pair.fixed.digest for pair in inspect_slides(asked)}
    index.save()  # from now on the folder is an index's, and the same command goes on with it
    known = {slide.name: slide for slide in index.slides}
    represented = represent_slides(asked, subscriber, stop)
    new = {
        row.name: IndexedSlide(row.name, row.modality, row.spec, digests[row.name], made, row.mask)
        for row, made in zip(request.rows, represented, strict=True)
    }
    for slide in new.values():
        stop.check()
        if known.get(slide.name) != slide or not _is_whole(index.folder, slide.name):
            _write(index.folder, slide)
    left = [name for name in known if name not in new] if request.only else renamed(known, new)
    kept = {name: slide for name, slide in (known | new).items() if name not in left}
    index = Index(index.folder, index.model, tuple(kept.values()))
    index.save()
    for name in left:
        _cells(index.folder, name).unlink(missing_ok=True)
        _signatures(index.folder, name).unlink(missing_ok=True)
    return index


def renamed(known: Mapping[str, IndexedSlide], new: Mapping[str, IndexedSlide]) -> list[str]:
    """Return the names of known slides whose image is among the new ones under another name alone."""
    images = {_image(slide) for slide in new.values()}
    return [name for name, slide in known.items() if name not in new and _image(slide) in images]


def _image(slide: IndexedSlide) -> tuple[str, int, str, str]:
    """Return what tells an image from others, whatever its name and its file's."""
    return slide.digest, slide.spec.series, slide.spec.channel, slide.modality


def _require_one_channel(model: Model) -> None:
    channels = model.card.modalities[0].architecture.latent_channels
    if channels != 1:
        raise ModelError(
            f"representations of the model {model.card.name} have {channels} channels, and an index is of one; "
            "choose a model with one"
        )


def _begun(request: IndexRequest) -> Index:
    folder = request.folder
    if _json(folder).is_file():
        return Index.open(folder, request.model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds other files, not those of an index; choose another --out")
    return Index(folder.resolve(), request.model, ())


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path} is damaged; remove {path.parent} and run comir-batch index again")


def _missing(path: Path, slide: IndexedSlide) -> ConfigError:
    return ConfigError(
        f"{path}, which the index has of {slide.name}, is missing or damaged; remove it if it is there, and run "
        "comir-batch index again with a table that names the slide"
    )


def _write(folder: Path, slide: IndexedSlide) -> None:
    grid = slide.represented.grid
    cells = read_cells(slide.represented.read, (grid.width, grid.height))
    half = {"values": cells.values.astype(np.float16), "weight": cells.weight.astype(np.float16)}
    write_array(_signatures(folder, slide.name), signatures_of(cells))
    write_arrays(_cells(folder, slide.name), **half)


def _is_whole(folder: Path, name: str) -> bool:
    return _cells(folder, name).is_file() and _signatures(folder, name).is_file()


def _json(folder: Path) -> Path:
    return folder / "index.json"


def _cells(folder: Path, name: str) -> Path:
    return folder / "cells" / f"{name}.npz"


def _signatures(folder: Path, name: str) -> Path:
    return folder / "signatures" / f"{name}.npy"


def _model(recorded: dict[str, str]) -> Model:
    folder = Path(recorded["folder"])
    return find_model(folder) if folder.is_dir() else find_model(recorded["name"])


def _record(folder: Path, slide: IndexedSlide) -> dict[str, Any]:
    made = slide.represented
    return {
        "slide_id": slide.name,
        "modality": slide.modality,
        "path": str(slide.spec.path),
        "series": slide.spec.series,
        "channel": slide.spec.channel,
        "mpp": slide.spec.mpp,
        "mask": None if slide.mask is None else str(slide.mask),
        "digest": slide.digest,
        "chunk": str(made.chunk.relative_to(folder)),
        "representation": str(made.representation.relative_to(folder)),
        "grid": list(astuple(made.grid)),
    }


def _slide(folder: Path, record: dict[str, Any]) -> IndexedSlide:
    made = RepresentedSlide(folder / record["chunk"], folder / record["representation"], Grid(*record["grid"]))
    spec = SlideSpec(Path(record["path"]), record["series"], record["channel"], record["mpp"])
    mask = None if record["mask"] is None else Path(record["mask"])
    return IndexedSlide(record["slide_id"], record["modality"], spec, record["digest"], made, mask)


def names(slides: Sequence[IndexedSlide]) -> str:
    """Return the modalities of slides with their numbers, in words."""
    counts = {slide.modality: 0 for slide in slides}
    for slide in slides:
        counts[slide.modality] += 1
    return ", ".join(f"{count} {modality}" for modality, count in sorted(counts.items())) or "none"
