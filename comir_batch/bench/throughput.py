"""How fast the stages that move pixels are, beside other programs on the same data: one table."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from comir_batch.bench import throughput_stages, throughput_warp, throughput_writing
from comir_batch.bench.comparison import COLUMNS, Row, compare
from comir_batch.bench.material import Material, pixels_of
from comir_batch.bench.threads import libraries_limited
from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.files import make_folder, remove_tree, write_json, write_text
from comir_batch.pipeline.provenance import versions
from comir_batch.report import markdown
from comir_batch.representation.store import find_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from comir_batch.bench.comparison import Comparison

GROUPS: dict[str, Callable[[Material], Iterator[Comparison]]] = {
    throughput_stages.REPRESENT: throughput_stages.represent_comparisons,
    throughput_warp.GROUP: throughput_warp.comparisons,
    throughput_writing.ZARR: throughput_writing.zarr_comparisons,
    throughput_writing.TIFF: throughput_writing.tiff_comparisons,
    throughput_stages.CHUNK: throughput_stages.chunk_comparisons,
}
_PEERS = ("itk-elastix", "scikit-image", "pyvips", "ome-zarr", "ngff-zarr", "zarrs")


@dataclass(frozen=True, slots=True)
class ThroughputRequest:
    """What is asked.

    Attributes
    ----------
    slide : Path
        A real slide, whose pixels are laid out in mirrored tiles.
    side : int
        Pixels a side of that square, which is in memory several times over.
    out : Path
        Takes throughput.json and throughput.md, and files for the time of the measurement.
    repeats : int
        Measured runs of everybody.
    threads : int
        Of everybody.
    only : tuple of str
        Groups of rows, of `GROUPS`; empty for all.
    model, modality : str
        For representations; the model's first modality if empty.
    network_side : int
        Pixels a side of the square that is represented.
    command : tuple of str
        What was typed.
    """

    slide: Path
    side: int
    out: Path
    repeats: int = 5
    threads: int = 1
    only: tuple[str, ...] = ()
    model: str = "dapi-tritc"
    modality: str = ""
    network_side: int = 1024
    command: tuple[str, ...] = ()


def measure_throughput(request: ThroughputRequest, tell: Callable[[str], None]) -> list[Row]:
    """Measure, and write the table; rows that are done stay in it when a later one fails.

    Parameters
    ----------
    request : ThroughputRequest
        What is asked.
    tell : callable
        Hears what is measured next.

    Returns
    -------
    list of Row
        Those that could not be measured among them, with the reason.

    Raises
    ------
    ConfigError
        If there is no such group.
    SlideError
        If the slide cannot be read.
    """
    chosen = _chosen(request.only)
    _require_modality(request)
    make_folder(request.out)
    folder = request.out / ".measuring"
    remove_tree(folder)
    folder.mkdir()
    rows: list[Row] = []
    machine = describe_machine(request.threads)
    try:
        with libraries_limited(request.threads):
            for comparison in _comparisons(chosen, _material(request, folder)):
                tell(comparison.work)
                rows += compare(comparison, request.repeats, folder / "run")
                _write(request, rows, machine)
    finally:
        remove_tree(folder)
    return rows


def _require_modality(request: ThroughputRequest) -> None:
    card = find_model(request.model).card
    if request.modality and not card.knows(request.modality):
        known = " and ".join(modality.modality for modality in card.modalities)
        raise ConfigError(
            f"the model {card.name} is for {known}, not for {request.modality}; give --modality one of them"
        )


def _chosen(only: Iterable[str]) -> list[str]:
    unknown = sorted(set(only) - set(GROUPS))
    if unknown:
        raise ConfigError(f"there are no rows named {', '.join(unknown)}. Give --only one of {', '.join(GROUPS)}")
    return [name for name in GROUPS if not only or name in only]


def _material(request: ThroughputRequest, folder: Path) -> Material:
    info, pixels = pixels_of(request.slide, request.side)
    return Material(
        request.slide, info, pixels, folder, request.threads, request.model, request.modality, request.network_side
    )


def _comparisons(names: Sequence[str], material: Material) -> Iterator[Comparison]:
    for name in names:
        yield from GROUPS[name](material)


def describe_machine(threads: int) -> dict[str, Any]:
    """Return processor, cores, threads, load at the moment and versions, in JSON's own types."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads": threads,
        "load": [round(value, 2) for value in os.getloadavg()],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions() | {name: _version(name) for name in _PEERS},
    }


def _processor() -> str:
    """Return the processor's name; platform knows it on few systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _write(request: ThroughputRequest, rows: Sequence[Row], machine: dict[str, Any]) -> None:
    said = {
        "command": list(request.command),
        "measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "slide": request.slide.name,
        "side_px": request.side,
        "repeats": request.repeats,
    }
    document = [asdict(row) | {"met": row.met} for row in rows]
    write_json(request.out / "throughput.json", said | {"machine": machine, "rows": document})
    table = markdown.table(COLUMNS, (row.cells() for row in rows))
    write_text(request.out / "throughput.md", f"{_heading(request, machine)}\n\n{table}\n")


def _heading(request: ThroughputRequest, machine: dict[str, Any]) -> str:
    peers = ", ".join(f"{name} {machine['versions'][name]}" for name in _PEERS)
    load = machine["load"][0]
    return (
        f"{machine['processor']}, {machine['cores']} cores ({machine['logical_cores']} logical), {request.threads} "
        f"thread(s) for everybody, load at the start {load:g}; {request.side} x {request.side} px of mirrored tiles of "
        f"{request.slide.name}; medians (smallest-largest) of {request.repeats} interleaved repeats. {peers}."
    )
