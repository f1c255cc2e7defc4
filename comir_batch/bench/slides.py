"""Pairs of slides of any size with a known truth, as files: real pixels in a layout that is made up, streamed."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import numpy as np

from comir_batch.bench.known_motion import Motion, smooth_bend, turned
from comir_batch.bench.mirrored import MirroredSlide
from comir_batch.core.block import BlockPlan
from comir_batch.core.config import WarpConfig
from comir_batch.core.errors import ConfigError
from comir_batch.core.manifest import REQUIRED
from comir_batch.core.slide import SlideSpec
from comir_batch.core.transform import Composite
from comir_batch.io.ngff_writer import NgffImage, write_ngff_metadata
from comir_batch.io.ome_tiff_writer import TiffImage, write_ome_tiff
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import write_json as write_transform_json
from comir_batch.io.zarr_array import ZarrArray
from comir_batch.pipeline.files import make_folder, remove_tree, write_json
from comir_batch.pipeline.layout import level_path
from comir_batch.pipeline.overview import make_overview
from comir_batch.pipeline.stages.chunk import background
from comir_batch.pipeline.stages.warp import aligned_levels, halved
from comir_batch.warp.inverse_map import inverted
from comir_batch.warp.resample import warp_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.bench.recovery import AlignedPair
    from comir_batch.core.geometry import Grid, Region
    from comir_batch.core.slide import PixelSource, SlideInfo

    Pixels = Callable[[Region], NDArray[np.generic]]
    Tell = Callable[[str], None]

Format = Literal["ome-tiff", "ome-zarr"]
FORMATS: tuple[Format, ...] = ("ome-tiff", "ome-zarr")
SIDES = ("fixed", "moving")
LANDMARKS = 200
_SUFFIXES = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}
_CHUNK, _SHARD = 512, 2048
_SHIFT = 0.01  # of the side, along x and y
_TOLERANCE_PX = 0.05  # between where a pixel of the moving slide is taken from and where the truth says
_LATTICE_STEP = 64  # pixels between points on which the deformation is measured
_CANDIDATES = 100  # random points for each landmark, for those that lie on no tissue


@dataclass(frozen=True, slots=True)
class SlidesRequest:
    """What is asked.

    Attributes
    ----------
    pair : AlignedPair
        Real slides of one size.
    side : int
        Pixels of both square slides.
    format : {"ome-tiff", "ome-zarr"}
        Of both.
    out : Path
        Folder that is made, or empty.
    compression : {"jpeg", "deflate", "zstd", "none"}
        Of OME-TIFF; OME-Zarr is written in Zstandard, as a run writes it.
    angle_deg, amplitude_um : float
        Turn of the moving slide, and largest displacement of its deformation.
    seed : int
        Of the deformation and of the landmarks.
    """

    pair: AlignedPair
    side: int
    format: Format
    out: Path
    compression: str = "jpeg"
    angle_deg: float = 5.0
    amplitude_um: float = 12.0
    seed: int = 0

    def path(self, side: str) -> Path:
        """Return the file or folder of the fixed or the moving slide."""
        return self.out / f"{side}{_SUFFIXES[self.format]}"


def build_slides(request: SlidesRequest, tell: Tell) -> Path:
    """Write a pair of square slides, the truth between them, landmarks and a manifest.

    Both slides are mirrored tiles of the real pair; the moving one is turned about its centre, shifted by a hundredth
    of its side and smoothly bent. Pixels are real, the layout is made up: it repeats itself every two tiles. Blocks of
    2048 pixels are made, written and forgotten one by one, so memory does not grow with the side. An OME-TIFF is
    written from an OME-Zarr, which takes its place on the disk until then. The same request makes the same pixels.

    Parameters
    ----------
    request : SlidesRequest
        What is asked.
    tell : callable
        Hears of the progress, a line at a time.

    Returns
    -------
    Path
        The manifest, which names the slides and at most `LANDMARKS` landmarks on tissue; it is written last. Beside
        it lie ``truth.json`` (fixed to moving, µm) and ``about.json``.

    Raises
    ------
    ConfigError
        If `out` is not empty, the slides differ in size, hold no tissue, or cannot be stored so.
    SlideError
        If a slide cannot be read.
    """
    _require_empty(request.out)
    with (
        MirroredSlide(open_slide(SlideSpec(request.pair.fixed)), request.side) as fixed,
        MirroredSlide(open_slide(SlideSpec(request.pair.moving)), request.side) as moving,
    ):
        _require_alike(fixed.source, moving.source, request)
        grid = fixed.info.grid()
        truth = known_truth(grid, request)
        points, moved = _landmarks(fixed, truth, request.seed), _moved(moving, grid, truth)
        make_folder(request.out)
        write_transform_json(truth, request.out / "truth.json")
        write_json(request.out / "about.json", _about(request, len(points)))
        _write(request, "fixed", fixed.info, fixed.read, tell)
        _write(request, "moving", moving.info, moved, tell)
    for name, marks in zip(SIDES, (points, truth.map(points)), strict=True):
        _write_points(request.out / f"{name}_landmarks.csv", marks)
    return _write_manifest(request)


def known_truth(grid: Grid, request: SlidesRequest) -> Composite:
    """Return where points of the fixed slide lie on the moving slide, both of this grid."""
    affine = turned(grid, request.angle_deg, _SHIFT)
    if not request.amplitude_um:
        return Composite((affine,))
    motion = Motion(amplitude_um=request.amplitude_um, seed=request.seed)
    return Composite((smooth_bend(grid, motion, _LATTICE_STEP), affine))


def _require_empty(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and not an empty folder. Remove it, or choose another --out")


def _require_alike(fixed: PixelSource, moving: PixelSource, request: SlidesRequest) -> None:
    sizes = [(source.info.levels[0].width, source.info.levels[0].height) for source in (fixed, moving)]
    if sizes[0] != sizes[1]:
        (a, b), (c, d) = sizes
        raise ConfigError(f"the slides are {a} x {b} and {c} x {d} pixels. Give a pair whose pixels lie on each other")
    eight_bits = all(source.info.dtype == "uint8" for source in (fixed, moving))
    if request.format == "ome-tiff" and request.compression == "jpeg" and not eight_bits:
        raise ConfigError("JPEG holds 8-bit pixels, and these slides have others. Give --compression deflate")


def _moved(moving: MirroredSlide, grid: Grid, truth: Composite) -> Pixels:
    """Return what reads the moving slide: each of its pixels is taken from where the truth's inverse lays it."""
    back = inverted(truth, grid, grid, _TOLERANCE_PX * min(grid.mpp_x, grid.mpp_y))
    config = WarpConfig(interpolation="cubic")
    fill = background(moving.info.photometric, moving.info.dtype)
    return lambda region: warp_block(moving, back, grid, region, config, fill=fill)


def _write(request: SlidesRequest, side: str, info: SlideInfo, pixels: Pixels, tell: Tell) -> None:
    source = request.pair.fixed if side == "fixed" else request.pair.moving
    made_up = MadeUp(
        f"{side}, mirrored tiles of {source.name}", info, pixels, request.compression, _uuid(request, side)
    )
    write_made_up(made_up, request.path(side), lambda text: tell(f"{side}: {text}"))


@dataclass(frozen=True, slots=True, eq=False)
class MadeUp:
    """A slide that does not exist yet.

    Attributes
    ----------
    name : str
        What the file says of it.
    info : SlideInfo
        Its finest level, channels and type.
    pixels : callable
        Returns the ``(C, Y, X)`` pixels of a region of the finest level.
    compression : str
        Of an OME-TIFF.
    uuid : UUID
        Of an OME-TIFF.
    """

    name: str
    info: SlideInfo
    pixels: Pixels
    compression: str
    uuid: UUID


def write_made_up(slide: MadeUp, out: Path, tell: Tell) -> None:
    """Write a slide with its pyramid, as OME-Zarr or OME-TIFF by the name; it appears whole, by a rename."""
    info = slide.info
    attributes = {"comir_batch": {"layout": f"made up, {slide.name}"}}
    image = NgffImage(
        slide.name, aligned_levels(info.grid()), info.channels, info.dtype, is_rgb=info.is_rgb, attributes=attributes
    )
    folder = out.with_name(f".{out.name}.unfinished")
    remove_tree(folder)
    try:
        arrays = _filled(folder, image, background(info.photometric, info.dtype), slide.pixels, tell)
        if out.name.endswith(_SUFFIXES["ome-tiff"]):
            tell(out.name)
            said = TiffImage(slide.name, image.levels[0], info.channels, info.is_rgb, slide.uuid)
            write_ome_tiff(arrays, out, said, slide.compression)
        else:
            write_ngff_metadata(folder, image)
            folder.rename(out)
    finally:
        remove_tree(folder)


def _filled(folder: Path, image: NgffImage, fill: float, pixels: Pixels, tell: Tell) -> list[ZarrArray]:
    """Write the arrays of all levels, the finest first, block by block."""
    shapes = [(len(image.channels), *grid.shape) for grid in image.levels]
    arrays = [
        ZarrArray.create(level_path(folder, number), shape, image.dtype, chunk=_CHUNK, shard=_SHARD, fill=fill)
        for number, shape in enumerate(shapes)
    ]
    finest = BlockPlan(image.levels[0].width, image.levels[0].height, _SHARD)
    for number, region in enumerate(finest):
        if number % -(-len(finest) // 10) == 0:
            tell(f"{100 * number // len(finest)} %")
        arrays[0].write(region, pixels(region))
    for finer, coarser in pairwise(arrays):
        add_level(finer, coarser)
    return arrays


def add_level(finer: ZarrArray, coarser: ZarrArray) -> None:
    """Fill an empty level from the one below, block by block."""
    _, height, width = coarser.shape
    for region in BlockPlan(width, height, coarser.shard):
        coarser.write(region, halved(finer, region))


def _uuid(request: SlidesRequest, side: str) -> UUID:
    """Return an identifier that follows from what is asked, so that the same request makes the same file."""
    told = repr((_about(request, 0), side, request.compression))
    return UUID(bytes=hashlib.sha256(told.encode()).digest()[:16])


def _about(request: SlidesRequest, landmarks: int) -> dict[str, Any]:
    return {
        "layout": "made up: mirrored tiles, which repeat themselves every two tiles; only the pixels are real",
        "sources": [request.pair.fixed.name, request.pair.moving.name],
        "side_px": request.side,
        "format": request.format,
        "compression": request.compression if request.format == "ome-tiff" else "zstd",
        "motion": asdict(Motion(request.angle_deg, amplitude_um=request.amplitude_um, seed=request.seed))
        | {"shift_um": None, "shift_of_side": _SHIFT},
        "landmarks": landmarks,
    }


def _landmarks(fixed: MirroredSlide, truth: Composite, seed: int) -> NDArray[np.float64]:
    """Return ``(N, 2)`` random points in µm on tissue of the fixed slide whose partners lie on the moving slide."""
    grid, overview = fixed.info.grid(), make_overview(fixed.source)
    pixels = np.random.default_rng(seed).random((LANDMARKS * _CANDIDATES, 2)) * (fixed.side - 1)
    columns, rows = overview.grid.to_pixels(grid.to_um(fixed.origins(pixels))).round().astype(int).T
    height, width = overview.tissue.shape
    on_tissue = overview.tissue[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    partners = grid.to_pixels(truth.map(grid.to_um(pixels)))
    inside = ((partners >= 0) & (partners <= fixed.side - 1)).all(axis=1)
    chosen = pixels[on_tissue & inside][:LANDMARKS]
    if not len(chosen):
        raise ConfigError(
            "no tissue of the fixed slide lies on the moving one. Give other slides, or less --angle or --amplitude"
        )
    return grid.to_um(chosen)


def _write_points(path: Path, points: NDArray[np.float64]) -> None:
    rows: Sequence[Sequence[float]] = points.round(4).tolist()
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("x_um", "y_um"), *rows])


def _write_manifest(request: SlidesRequest) -> Path:
    path = request.out / "manifest.csv"
    slides = [request.path(side).name for side in SIDES]
    marks = [f"{side}_landmarks" for side in SIDES]
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow([*REQUIRED, *marks])
        table.writerow(
            [f"made-up-{request.side}", *slides, *request.pair.modalities, *(f"{mark}.csv" for mark in marks)]
        )
    return path
