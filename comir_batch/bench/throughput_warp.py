"""The warp at full resolution, of one channel in memory, beside transformix, scikit-image and libvips."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.bench.comparison import Agreement, Comparison, Contender
from comir_batch.bench.known_motion import Motion, smooth_bend, turned
from comir_batch.bench.transformix import Transformix
from comir_batch.core.geometry import Region
from comir_batch.core.transform import Composite
from comir_batch.warp.lattice import coordinate_map
from comir_batch.warp.resample import warp_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.bench.material import Material
    from comir_batch.core.geometry import Grid

GROUP = "warp"
_ANGLE_DEG, _SHIFT = 5.0, 0.01  # the shift as a share of the side
_LATTICE_STEP = 64
# Of 8 bits. The mean leaves room for those who cut fractions off where we round.
_LEVELS, _SHARE, _MEAN = 1.0, 0.999, 0.5


def comparisons(material: Material) -> Iterator[Comparison]:
    """Yield the warps of a bent and of an affine transform."""
    pixels, grid = material.brightest(), material.grid
    affine = turned(grid, _ANGLE_DEG, _SHIFT)
    with Transformix(pixels, grid, material.folder / "transformix") as transformix:
        for name, transform in (
            ("B-spline and affine", Composite((smooth_bend(grid, Motion(), _LATTICE_STEP), affine))),
            ("affine", Composite((affine,))),
        ):
            others = (
                _transformix(transformix, transform),
                _skimage(pixels, grid, transform),
                _vips(pixels, grid, transform),
            )
            ours = Contender("comir-batch", partial(_ours, pixels, grid, transform))
            work = f"{name}, linear, one channel of {material.side} x {material.side} px"
            yield Comparison(GROUP, work, ours, others, partial(_agree, pixels.dtype))


def _ours(pixels: NDArray[np.generic], grid: Grid, transform: Composite, _folder: Path) -> NDArray[np.generic]:
    return np.asarray(warp_array(pixels[None], grid, transform, grid)[0])


def _transformix(process: Transformix, transform: Composite) -> Contender:
    def run(_folder: Path) -> Path:
        return process.warp(transform)

    note = "in a process that has itk loaded and the image in memory"
    return Contender("transformix (itk-elastix)", run, "itk", 10.0, note, cpu_s=process.cpu_s)


def _skimage(pixels: NDArray[np.generic], grid: Grid, transform: Composite) -> Contender:
    """Give scikit-image a matrix where there is one, which it is quick with, else a function of all pixels."""
    matrix = _pixel_matrix(grid, transform)

    def run(_folder: Path) -> NDArray[np.generic]:
        import skimage.transform as skimage  # noqa: PLC0415  need not be installed

        # It takes the matrix itself as quickly as an AffineTransform.
        mapped = _function(grid, transform) if matrix is None else matrix
        warp: Callable[..., NDArray[np.float64]] = skimage.warp
        found = warp(pixels, mapped, order=1, preserve_range=True)
        return np.asarray(np.rint(found).astype(pixels.dtype))

    note = "the exact transform as its inverse_map" if matrix is None else "the matrix as its inverse_map"
    return Contender("skimage.transform.warp", run, "skimage", 10.0, note)


def _function(grid: Grid, transform: Composite) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    return lambda places: grid.to_pixels(transform.map(grid.to_um(places)))


def _pixel_matrix(grid: Grid, transform: Composite) -> NDArray[np.float64] | None:
    """Return the (3, 3) matrix that takes fixed to moving pixels, or None if the transform bends."""
    if not transform.is_affine:
        return None
    origin, right, below = _function(grid, transform)(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    matrix = np.eye(3)
    matrix[:2] = np.column_stack([right - origin, below - origin, origin])
    return matrix


def _vips(pixels: NDArray[np.generic], grid: Grid, transform: Composite) -> Contender:
    matrix = _pixel_matrix(grid, transform)
    if matrix is not None:
        back = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
        return Contender("libvips affine", partial(_vips_affine, pixels, back), "pyvips", 1.0)
    index = _index(grid, transform)
    note = "the moving pixel of every pixel ready in memory, by our own lattice"
    return Contender("libvips mapim", partial(_vips_mapim, pixels, index), "pyvips", 1.0, note)


def _index(grid: Grid, transform: Composite) -> NDArray[np.float32]:
    """Return the (Y, X, 2) moving pixels ``(x, y)`` of all fixed pixels."""
    found = coordinate_map(transform, grid, Region(0, 0, grid.width, grid.height), grid, 0.02)
    x, y = (float(value) for value in found.origin)
    return np.stack([found.x + np.float32(x), found.y + np.float32(y)], axis=-1)


def _vips_mapim(pixels: NDArray[np.generic], index: NDArray[np.float32], _folder: Path) -> NDArray[np.generic]:
    import pyvips  # noqa: PLC0415  need not be installed

    image, places = pyvips.Image.new_from_array(pixels), pyvips.Image.new_from_array(index)
    return np.asarray(image.mapim(places, interpolate=pyvips.Interpolate.new("bilinear")).numpy())


def _vips_affine(pixels: NDArray[np.generic], matrix: NDArray[np.float64], _folder: Path) -> NDArray[np.generic]:
    import pyvips  # noqa: PLC0415  need not be installed

    height, width = pixels.shape
    (a, b, dx), (c, d, dy) = matrix[:2].tolist()
    image = pyvips.Image.new_from_array(pixels)
    bilinear = pyvips.Interpolate.new("bilinear")
    found = image.affine([a, b, c, d], odx=dx, ody=dy, oarea=[0, 0, width, height], interpolate=bilinear)
    return np.asarray(found.numpy())


def _agree(dtype: np.dtype[Any], ours: NDArray[np.generic], other: NDArray[np.generic] | Path) -> Agreement:
    """Compare the middle half of both images, which lies within the moving one and knows no border."""
    found: NDArray[np.generic] = other if isinstance(other, np.ndarray) else np.load(other)
    if found.shape != ours.shape:
        return Agreement(good=False, text=f"shapes {ours.shape} and {found.shape}")
    middle = tuple(slice(side // 4, side - side // 4) for side in ours.shape)
    unit = 1.0 if dtype.kind == "f" else (int(np.iinfo(dtype).max) + 1) / 256
    levels = np.abs(ours[middle].astype(np.float64) - found[middle].astype(np.float64)) / unit
    near, mean = float((levels <= _LEVELS).mean()), float(levels.mean())
    text = f"{100 * near:.4g} % of the middle within one level of 256, mean {mean:.2g}"
    return Agreement(near >= _SHARE and mean <= _MEAN, text)
