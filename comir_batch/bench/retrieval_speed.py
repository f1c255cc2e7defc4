"""How long a look-up takes in galleries of many patches, and how large their index is; the galleries are made up.

One slide of smooth noise is described as any slide is. Galleries are as many shifted copies of it as they take: what
they hold does not matter for the time, what a look-up finds in them means nothing.
"""

from __future__ import annotations

import math
import time
import tracemalloc
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import cv2
import numpy as np

from comir_batch.retrieval.cells import Cells, read_cells
from comir_batch.retrieval.lookup import look_up
from comir_batch.retrieval.shortlist import SHORTLISTED, Searched, look_up_shortlisted, shortlist
from comir_batch.retrieval.signatures import signatures_of
from comir_batch.retrieval.templates import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Image = NDArray[np.float32]
    _T = TypeVar("_T")

COLUMNS = (
    "patches",
    *("signatures (s, CPU s)", "and cells (s, CPU s)", "all places (s, CPU s)"),
    *("index (MB)", "build (CPU s)", "build (MB)"),
)
_SIDE, _PATCH, _QUERY = 4096, 128, 256  # pixels: of a slide, between patches, of the query
_MEGA = 1e6
_HALF = 2  # bytes of a stored number of cells: values and weights


class Time(NamedTuple):
    """The least of some calls, by the clock and of all cores together, in seconds."""

    wall: float
    cpu: float


class Speed(NamedTuple):
    """What a gallery takes.

    Attributes
    ----------
    patches : int
        Of 256 pixels, one every 128.
    signatures, shortlisted, everywhere : Time
        Of the signatures, of the whole look-up by a shortlist, and of that of all places, unless it was not asked for.
    index_mb : float
        Signatures and cells, uncompressed.
    build_s, build_mb : float
        To make them of representations that are in memory, and the most memory that it takes beside these: that of
        one slide of 4096 pixels a side, however many there are.
    """

    patches: int
    signatures: Time
    shortlisted: Time
    everywhere: Time | None
    index_mb: float
    build_s: float
    build_mb: float

    def cells(self) -> tuple[str, ...]:
        """Return `COLUMNS` as text."""
        looked_up = (self.signatures, self.shortlisted, self.everywhere)
        times = ("" if each is None else f"{each.wall:.3f}, {each.cpu:.3f}" for each in looked_up)
        return (str(self.patches), *times, f"{self.index_mb:.0f}", f"{self.build_s:.0f}", f"{self.build_mb:.0f}")


def measure_speed(patches: Sequence[int], repeats: int, *, all_places: bool) -> Iterator[Speed]:
    """Yield what galleries of so many patches take, rounded up to whole slides of 1024."""
    image = noise(_SIDE)
    built, (cells, described) = timed(lambda: _built(image), 1)
    peak = _peak_mb(lambda: _built(image))
    query = Query(image[:_QUERY, :_QUERY].copy(), np.ones((_QUERY, _QUERY), bool))
    one = Searched.of(cells, described)
    size = (described.nbytes + 2 * _HALF * cells.values.size) / _MEGA
    for count in patches:
        slides = math.ceil(count * _PATCH**2 / _SIDE**2)
        gallery = [replace(one, signatures=np.roll(one.signatures, number, axis=0)) for number in range(slides)]
        seen = [each.signatures for each in gallery]
        yield Speed(
            slides * (_SIDE // _PATCH) ** 2,
            timed(partial(shortlist, query, seen, SHORTLISTED), repeats)[0],
            timed(partial(look_up_shortlisted, query, gallery, 30), repeats)[0],
            timed(partial(look_up, query, [cells] * slides, 30), 1)[0] if all_places else None,
            slides * size,
            slides * built.cpu,
            peak,
        )


def noise(side: int) -> Image:
    """Return a square of noise whose details are some ten pixels wide."""
    rough = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(rough, (0, 0), 4), dtype=np.float32)


def _built(image: Image) -> tuple[Cells, NDArray[np.int8]]:
    cells = read_cells(lambda region: image[None, *region.slices], (image.shape[1], image.shape[0]))
    return cells, signatures_of(cells)


def timed(call: Callable[[], _T], repeats: int) -> tuple[Time, _T]:
    """Return the least that some calls took, and what the last one returned."""
    wall = cpu = math.inf
    for _ in range(repeats):
        start, computed = time.perf_counter(), time.process_time()
        made = call()
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - computed)
    return Time(wall, cpu), made


def _peak_mb(call: Callable[[], object]) -> float:
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / _MEGA
