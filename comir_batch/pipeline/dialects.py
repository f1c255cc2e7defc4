"""The dialects in which a transform can be written, each with its convention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.errors import UserError
from comir_batch.pipeline import encoding

if TYPE_CHECKING:
    from collections.abc import Callable

    from comir_batch.pipeline.encoding import Encoded, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A way of writing transforms, and its convention.

    Attributes
    ----------
    name : str
        By which it is asked for.
    file : str
        Name of its file beside other results.
    suffixes : tuple of str
        Suffixes that its readers know; none for a folder.
    holds : str
        What of a transform it can hold.
    readers : str
        Programs that read it.
    encode : callable
        Makes it of a job.
    forward : bool
        Whether it usually maps fixed points to moving points.
    unit : str
        Of its coordinates.
    centre : float
        Coordinate of the first pixel's centre.
    """

    name: str
    file: str
    suffixes: tuple[str, ...] = (".json",)
    holds: str
    readers: str
    encode: Callable[[Job], Encoded]
    forward: bool = True
    unit: str = "micrometer"
    centre: float = 0.0

    @property
    def maps(self) -> str:
        """Its usual direction, in words."""
        return "fixed to moving" if self.forward else "moving to fixed"


_AFFINE = "affine; of a bent transform the best one"
_TABLE = (
    Dialect(name="json", file="transform.json", holds="all", readers="comir-batch", encode=encoding.own_json),
    Dialect(
        name="itk",
        file="transform.h5",
        suffixes=(".h5", ".hdf5", ".tfm"),
        holds="all",
        readers="ITK, SimpleITK, 3D Slicer",
        encode=encoding.itk,
    ),
    Dialect(
        name="elastix",
        file="elastix",
        suffixes=(),
        holds="all",
        readers="transformix, run in the folder, with the last file",
        encode=encoding.elastix,
    ),
    Dialect(
        name="mha",
        file="field.mha",
        suffixes=(".mha",),
        holds="displacements, linear between samples",
        readers="ITK, SimpleITK, 3D Slicer",
        encode=encoding.mha,
    ),
    Dialect(
        name="ngff",
        file="scene.ome.zarr",
        suffixes=(".zarr",),
        holds="affine, else displacements, linear between samples",
        readers="OME-Zarr 0.6 (RFC-5)",
        encode=encoding.scene,
    ),
    Dialect(
        name="napari",
        file="napari.json",
        holds=_AFFINE,
        readers="napari: affine= of the moving layer, whose scale= is in µm",
        encode=encoding.napari,
        forward=False,
    ),
    Dialect(
        name="napari-px",
        file="napari-px.json",
        holds=_AFFINE,
        readers="napari: affine= of the moving layer, without scale=",
        encode=encoding.napari_px,
        forward=False,
        unit="pixel",
    ),
    Dialect(
        name="qupath",
        file="qupath.json",
        holds=_AFFINE,
        readers="QuPath: the moving image's overlay on the fixed image",
        encode=encoding.qupath,
        unit="pixel",
        centre=0.5,
    ),
    Dialect(
        name="warpy",
        file="warpy.json",
        holds="affine, else thin plates through about 400 landmarks",
        readers="QuPath's Warpy, as data/MOVING/transform_MOVING_FIXED.json of the project",
        encode=encoding.warpy,
        unit="pixel",
        centre=0.5,
    ),
)
DIALECTS = {dialect.name: dialect for dialect in _TABLE}


def dialect_named(name: str) -> Dialect:
    """Return a dialect; raises UserError where there is none of that name."""
    if name not in DIALECTS:
        raise UserError(f"there is no dialect {name!r}. Choose one of {', '.join(DIALECTS)}")
    return DIALECTS[name]
