"""Dense upright SIFT: descriptors of square blocks on a lattice of pixels, for several widths of blocks.

Each block has 4 x 4 cells with 8 orientations of the gradient (Lowe, IJCV 2004). All blocks of one width are described
at once: the gradient's magnitude is split into 8 planes by its orientation, linearly between the two nearest; each
plane is averaged under a triangle as wide as two cells, as linear interpolation between cells does; and a block reads
its cells from the planes (the flat window of Vedaldi and Fulkerson's VLFeat). Cells count by a Gaussian of two
cells about the block's middle. Descriptors are normalised, clipped at 0.2, normalised again, and their roots taken, so
that Euclidean distances of descriptors are Hellinger's (Arandjelović and Zisserman, CVPR 2012).

Cells lie symmetrically about the block's middle, so an image turned by a quarter or mirrored has the same descriptors
with other numbers: see `SYMMETRIES`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Image = NDArray[np.float32]

_CELLS, _ORIENTATIONS = 4, 8
LENGTH = _CELLS * _CELLS * _ORIENTATIONS
"""Numbers of a descriptor."""
_CLIP = 0.2
_WINDOW_CELLS = 2.0
_SMOOTHED = 1 / 6  # of a cell: the blur that SIFT's scale space has where such a block is described
_INSIDE = 0.9  # of a block, at least, for it to be described


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where blocks lie.

    Attributes
    ----------
    step : int
        Pixels between the middles of neighbouring blocks, which lie at multiples of it.
    widths : tuple of int
        Of the blocks, in pixels; multiples of 8.

    Raises
    ------
    ValueError
        If a width is not such a multiple, or there is none.
    """

    step: int = 8
    widths: tuple[int, ...] = (32, 64, 96, 128)

    def __post_init__(self) -> None:
        if not self.widths or any(width < 8 or width % 8 for width in self.widths) or self.step < 1:
            raise ValueError(
                f"block widths must be multiples of 8 and the step positive, not {self.widths}, {self.step}"
            )

    def nodes(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return how many rows and columns of blocks an image of ``(height, width)`` pixels has."""
        return -(-shape[0] // self.step), -(-shape[1] // self.step)


class Described(NamedTuple):
    """Blocks of one width.

    Attributes
    ----------
    descriptors : (rows, columns, 128) float32
        Of unit length; zero where nothing varies.
    strengths : (rows, columns) float32
        Length of the descriptor before it was normalised.
    inside : (rows, columns) bool
        Whether the block lies in the image and its mask.
    """

    descriptors: NDArray[np.float32]
    strengths: NDArray[np.float32]
    inside: NDArray[np.bool_]


def describe(image: Image, mask: NDArray[np.bool_], lattice: Lattice) -> list[Described]:
    """Describe the blocks of an image.

    Parameters
    ----------
    image : (Y, X) float32
        Finite inside the mask.
    mask : (Y, X) bool
        Pixels that count; blocks of which less than nine tenths do are not inside.
    lattice : Lattice
        Where the blocks lie.

    Returns
    -------
    list of Described
        One for each width, in their order.
    """
    filled = np.where(mask, image, image[mask].mean() if mask.any() else 0).astype(np.float32)
    return [_of_width(filled, mask, lattice.step, width) for width in lattice.widths]


def _of_width(image: Image, mask: NDArray[np.bool_], step: int, width: int) -> Described:
    cell = width // _CELLS
    smooth = np.asarray(cv2.GaussianBlur(image, (0, 0), cell * _SMOOTHED), dtype=np.float32)
    planes = _oriented(smooth, mask)
    offsets = [(index - (_CELLS - 1) / 2) * cell for index in range(_CELLS)]
    weights = [math.exp(-((offset / (_WINDOW_CELLS * cell)) ** 2) / 2) for offset in offsets]
    shape = Lattice(step).nodes(image.shape)
    raw = np.empty((*shape, _CELLS, _CELLS, _ORIENTATIONS), np.float32)
    margin = int(-offsets[0])
    for orientation, plane in enumerate(planes):
        cells = cv2.copyMakeBorder(_triangle(plane, cell), margin, margin, margin, margin, cv2.BORDER_CONSTANT)
        for row, y in enumerate(offsets):
            for column, x in enumerate(offsets):
                top, left = margin + int(y), margin + int(x)
                block = cells[top : top + image.shape[0] : step, left : left + image.shape[1] : step]
                raw[:, :, row, column, orientation] = block * (weights[row] * weights[column])
    descriptors, strengths = normalised(raw.reshape(*shape, LENGTH))
    share = cv2.boxFilter(mask.astype(np.float32), -1, (width + 1, width + 1), borderType=cv2.BORDER_CONSTANT)[
        ::step, ::step
    ]
    return Described(descriptors, strengths, share >= _INSIDE)


def normalised(raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the roots of clipped descriptors of unit length, and the lengths of the raw ones, along the last axis."""
    strengths = np.linalg.norm(raw, axis=-1)
    unit = np.minimum(raw / np.maximum(strengths, 1e-12)[..., None], _CLIP)
    unit = np.maximum(unit / np.maximum(unit.sum(axis=-1), 1e-12)[..., None], 0)  # running sums may end below zero
    return np.sqrt(unit, out=unit), strengths


def _oriented(image: Image, mask: NDArray[np.bool_]) -> list[Image]:
    """Split the gradient's magnitude by its direction; zero where the mask's border would make a gradient."""
    right, down = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1)
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    magnitude, angle = cv2.cartToPolar(right, down)
    magnitude *= inner
    place = angle * np.float32(_ORIENTATIONS / (2 * math.pi))
    lower = np.floor(place)
    above = place - lower
    lower = lower.astype(np.int8) % _ORIENTATIONS
    return [
        magnitude
        * (
            np.where(lower == orientation, 1 - above, 0)
            + np.where(lower == (orientation - 1) % _ORIENTATIONS, above, 0)
        ).astype(np.float32)
        for orientation in range(_ORIENTATIONS)
    ]


def _triangle(plane: Image, cell: int) -> Image:
    """Average under a triangle of twice a cell: two boxes, the even ones' halves of a pixel undone by each other."""
    low, high = (cell - 1) // 2, cell // 2
    once = cv2.boxFilter(plane, -1, (cell, cell), anchor=(low, low), borderType=cv2.BORDER_CONSTANT)
    twice = cv2.boxFilter(once, -1, (cell, cell), anchor=(high, high), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(twice, dtype=np.float32)


def _symmetries() -> NDArray[np.intp]:
    """Return for each symmetry which number of a descriptor each number of the changed image's is."""
    index = np.arange(LENGTH).reshape(_CELLS, _CELLS, _ORIENTATIONS)
    orientations = np.arange(_ORIENTATIONS)
    found = []
    for mirrored in (False, True):
        # x is mirrored first: columns run the other way, and a direction a becomes 180 degrees - a.
        base = index[:, ::-1][:, :, (_ORIENTATIONS // 2 - orientations) % _ORIENTATIONS] if mirrored else index
        for quarters in range(4):
            # np.rot90 turns what is to the right, towards the top: directions lose a quarter in x-right, y-down.
            turned = np.rot90(base, quarters)[:, :, (orientations + 2 * quarters) % _ORIENTATIONS]
            found.append(turned.ravel())
    return np.array(found)


SYMMETRIES = _symmetries()
"""``(8, 128)``: ``descriptor[SYMMETRIES[4 * m + k]]`` describes ``np.rot90`` by k quarters of the block, its columns
first reversed if m is 1."""
