"""Our own pixel arrays: sharded Zarr v3, ``(C, Y, X)``, written shard by shard, each shard atomically.

A shard is the unit of writing. Partial writes of one shard by two tasks lose data silently, so they are refused. The
`zarrs` codec pipeline is used where it is installed (it writes about two and a half times as fast); because it writes
files in place, and a killed task must never leave half a shard, every write goes to a scratch folder and is renamed.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from comir_batch.io.boxes import require_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

    from comir_batch.core.geometry import Region

METADATA = "zarr.json"
_SCRATCH = ".writing-"
_DIMENSIONS = ("c", "y", "x")

# A worker process does one task at a time on few cores; zarr's own defaults would start 10 reads and as many threads
# as the node has cores.
zarr.config.set({"async.concurrency": 4, "threading.max_workers": 4})
if importlib.util.find_spec("zarrs") is not None:
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})


@dataclass(frozen=True, slots=True, eq=False)
class ZarrArray:
    """A sharded ``(C, Y, X)`` array in a folder; make it with `create` or `open`. Pickles as its path.

    Regions address its own pixels: their `level` is the caller's label and is not looked at.

    Attributes
    ----------
    path : Path
        Folder of the array.
    """

    path: Path
    _array: zarr.Array[Any] = field(repr=False)

    @classmethod
    def create(
        cls,
        path: Path,
        shape: tuple[int, int, int],
        dtype: DTypeLike,
        *,
        chunk: int,
        shard: int,
        fill: float = 0,
        apart: bool = False,
    ) -> ZarrArray:
        """Create an empty array, or open the one that is there if it has the same layout.

        Parameters
        ----------
        path : Path
            Its folder; parents are made. The metadata appears by a rename, so several tasks may create it at once.
        shape : (int, int, int)
            Channels, height, width.
        dtype : dtype
            Of the pixels.
        chunk, shard : int
            Sides of the square chunks, and of the shards that hold them, in pixels; a shard holds all channels.
        fill : float
            Value of pixels that were never written; chunks full of it take no space.
        apart : bool
            Whether each channel has chunks of its own, for images whose channels are looked at one by one; else all lie
            in one chunk.

        Returns
        -------
        ZarrArray
            The open array.

        Raises
        ------
        ValueError
            If the shard is no multiple of the chunk, or an array with another layout is there.
        """
        if shard % chunk:
            raise ValueError(f"shard {shard} must be a multiple of chunk {chunk}")
        wanted = (tuple(shape), np.dtype(dtype), (1 if apart else shape[0], chunk, chunk), shard, float(fill))
        if not (path / METADATA).exists():
            _create(path, wanted)
        made = cls.open(path)
        found = (made.shape, made.dtype, made.chunks, made.shard, made.fill)
        if found != wanted:
            raise ValueError(f"{path} holds an array of layout {found}, not {wanted}")
        return made

    @classmethod
    def open(cls, path: Path) -> ZarrArray:
        """Open an array that `create` made.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        return cls(path, _open(path))

    def __reduce__(self) -> tuple[Callable[[Path], ZarrArray], tuple[Path]]:
        return ZarrArray.open, (self.path,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return cast("tuple[int, int, int]", self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._array.dtype

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Channels, height and width of a chunk."""
        return cast("tuple[int, int, int]", self._array.chunks)

    @property
    def chunk(self) -> int:
        """Side of a chunk in pixels."""
        return self.chunks[-1]

    @property
    def shard(self) -> int:
        """Side of a shard in pixels."""
        shards = self._array.shards
        return int(shards[-1]) if shards else self.chunk

    @property
    def fill(self) -> float:
        """Value of pixels that were never written."""
        return float(cast("float", self._array.metadata.fill_value))

    def read(self, region: Region) -> NDArray[np.generic]:
        """Return the pixels of a region, ``(C, Y, X)``, C-contiguous, in the array's dtype.

        Raises
        ------
        ValueError
            If the region leaves the array.
        """
        _, height, width = self.shape
        require_inside(region, width, height)
        return np.ascontiguousarray(self._array[:, *region.slices])

    def write(self, region: Region, pixels: NDArray[np.generic]) -> None:
        """Write a region of whole shards, or up to the border; each shard is replaced atomically.

        Parameters
        ----------
        region : Region
            Starts on shard borders; ends on them or on the array's.
        pixels : (C, Y, X) array
            In the array's dtype.

        Raises
        ------
        ValueError
            If a shard would be written in part, or shape or dtype do not fit.
        """
        self._require_whole_shards(region)
        expected = (self.shape[0], *region.shape)
        if pixels.shape != expected or pixels.dtype != self.dtype:
            raise ValueError(f"expected {self.dtype} pixels {expected}, not {pixels.dtype} {pixels.shape}")
        with TemporaryDirectory(prefix=_SCRATCH, dir=self.path) as name:
            scratch = Path(name)
            shutil.copyfile(self.path / METADATA, scratch / METADATA)
            _open(scratch)[:, *region.slices] = pixels
            for key in self._shard_keys(region):
                _replace(scratch / key, self.path / key)

    def _require_whole_shards(self, region: Region) -> None:
        _, height, width = self.shape
        require_inside(region, width, height)
        starts = not (region.x0 % self.shard or region.y0 % self.shard)
        if not (starts and _ends(region.x1, self.shard, width) and _ends(region.y1, self.shard, height)):
            raise ValueError(
                f"region x {region.x0}..{region.x1}, y {region.y0}..{region.y1} would write parts of shards of "
                f"{self.shard} x {self.shard} pixels (array {width} x {height})"
            )

    def _shard_keys(self, region: Region) -> Iterator[str]:
        for row in range(region.y0 // self.shard, -(-region.y1 // self.shard)):
            for column in range(region.x0 // self.shard, -(-region.x1 // self.shard)):
                yield f"c/0/{row}/{column}"


def sweep_leftovers(path: Path) -> int:
    """Remove what a killed writer left in an array's folder, and return how many things that were.

    Only for a folder that nobody writes to at the moment.
    """
    leftovers = list(path.glob(f"{_SCRATCH}*"))
    for leftover in leftovers:
        shutil.rmtree(leftover)
    return len(leftovers)


def _create(path: Path, layout: tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...], int, float]) -> None:
    shape, dtype, chunks, shard, fill = layout
    path.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=_SCRATCH, dir=path) as scratch:
        zarr.create_array(
            LocalStore(scratch),
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            shards=(shape[0], shard, shard),
            compressors=ZstdCodec(level=1),
            fill_value=dtype.type(fill),
            dimension_names=_DIMENSIONS,
        )
        (Path(scratch) / METADATA).replace(path / METADATA)


def _open(path: Path) -> zarr.Array[Any]:
    return zarr.open_array(LocalStore(path), mode="r+", zarr_format=3)


def _ends(end: int, shard: int, size: int) -> bool:
    return end == size or end % shard == 0


def _replace(source: Path, target: Path) -> None:
    if not source.exists():  # nothing but fill: such shards have no file
        target.unlink(missing_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
