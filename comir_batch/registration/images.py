"""What registration sees of a pair: two images with masks on µm grids, once for each way of comparing them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid

    Landmarks = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class RegistrationImage:
    """One image of a pair.

    Parameters
    ----------
    pixels : (Y, X) float32
        Intensities; finite inside the mask.
    mask : (Y, X) bool
        Pixels that count (tissue, not background).
    grid : Grid
        Their place in µm.
    scanned : (Y, X) float32 or None
        Of `evened` images: the intensities as scanned. Coarser images do not keep them.

    Raises
    ------
    ValueError
        If the shapes differ, the mask is empty, or a pixel inside it is not finite.
    """

    pixels: NDArray[np.float32]
    mask: NDArray[np.bool_]
    grid: Grid
    scanned: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        shapes = {each.shape for each in (self.pixels, self.mask, self.grid, self.scanned) if each is not None}
        if len(shapes) != 1:
            raise ValueError(f"pixels, mask and grid must have one shape, not {sorted(shapes)}")
        if not self.mask.any():
            raise ValueError("the mask is empty: nothing to register")
        if not np.isfinite(self.pixels[self.mask]).all():
            raise ValueError("pixels inside the mask must be finite")

    def masked(self, mask: NDArray[np.bool_]) -> RegistrationImage:
        """Return the image with another mask."""
        return replace(self, mask=mask)

    def as_scanned(self) -> RegistrationImage:
        """Return an evened image with its intensities as scanned; others as they are."""
        return self if self.scanned is None else replace(self, pixels=self.scanned, scanned=None)

    def enlarged(self, factor: float) -> RegistrationImage:
        """Return the image on pixels so many times as large, about the origin of the µm."""
        at = {name: factor * getattr(self.grid, name) for name in ("mpp_x", "mpp_y", "origin_x", "origin_y")}
        return replace(self, grid=replace(self.grid, **at))

    def cropped(self) -> RegistrationImage:
        """Return the bounding box of the mask."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        origin_x, origin_y = self.grid.to_um([[x0, y0]])[0]
        grid = replace(
            self.grid, width=int(x1 - x0), height=int(y1 - y0), origin_x=float(origin_x), origin_y=float(origin_y)
        )
        box = np.s_[y0:y1, x0:x1]
        scanned = None if self.scanned is None else self.scanned[box]
        return RegistrationImage(self.pixels[box], self.mask[box], grid, scanned)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One way of comparing the pair.

    Attributes
    ----------
    name : {"comir", "raw", "scanned", "outline"}
        What the pixels are: representations, intensities less what changes slowly, intensities as scanned, or how near
        the glass is; the last two only have a say in which start is likely.
    metric : {"ncc", "mi"}
        What makes them similar: normalised correlation, or mutual information.
    fixed, moving : RegistrationImage
        The images; all views of a pair lie on the same two grids.
    beside : View or None
        What a full fit makes alike besides.
    landmarks : ((N, 2) array, (N, 2) array) or None
        Corresponding points that a full fit brings together besides, fixed and moving, ``(x, y)`` in µm.
    """

    name: Literal["comir", "raw", "scanned", "outline"]
    metric: Literal["ncc", "mi"]
    fixed: RegistrationImage
    moving: RegistrationImage
    beside: View | None = None
    landmarks: Landmarks | None = None

    @property
    def second(self) -> Literal["none", "raw", "landmarks"]:
        """The second metric of its full fit."""
        return "raw" if self.beside else "none" if self.landmarks is None else "landmarks"

    def as_scanned(self) -> View:
        """Return a view of evened images with their intensities as scanned; others as they are."""
        return replace(self, fixed=self.fixed.as_scanned(), moving=self.moving.as_scanned())

    def alone(self) -> View:
        """Return the view without anything to heed besides."""
        return replace(self, beside=None, landmarks=None)

    def swapped(self) -> View:
        """Return the same from the moving image's side."""
        beside = None if self.beside is None else self.beside.swapped()
        landmarks = None if self.landmarks is None else (self.landmarks[1], self.landmarks[0])
        return replace(self, fixed=self.moving, moving=self.fixed, beside=beside, landmarks=landmarks)


def seconded(
    views: Sequence[View], metric: Literal["none", "raw", "landmarks"], landmarks: Landmarks | None = None
) -> tuple[View, ...]:
    """Return views with what their full fits shall heed besides, see `config.RegisterConfig.second_metric`.

    Raises
    ------
    ConfigError
        If landmarks shall count and there are none.
    """
    if metric == "landmarks":
        if landmarks is None:
            raise ConfigError("register.second_metric is landmarks, and there are none; give some, or set it to none")
        return tuple(replace(view, landmarks=landmarks) for view in views)
    raw = next((view for view in views if view.name == "raw"), None) if metric == "raw" else None
    return tuple(view if raw is None or view is raw else replace(view, beside=raw) for view in views)
