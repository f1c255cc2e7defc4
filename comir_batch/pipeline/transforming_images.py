"""Images and label images of one slide, warped onto the other by the stages of a run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Literal

import numpy as np

from comir_batch.core.config import WarpConfig
from comir_batch.core.errors import MissingPixelSizeError, UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.transform import Affine
from comir_batch.io.ngff_writer import NgffImage
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import write_json
from comir_batch.pipeline.files import remove_tree
from comir_batch.pipeline.image_file import publish, require_image_name
from comir_batch.pipeline.layout import PairFiles, RegisterFiles
from comir_batch.pipeline.stages.warp import WarpWork
from comir_batch.warp.inverse_map import inverted

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.slide import SlideInfo, SlideSpec
    from comir_batch.core.transform import Composite
    from comir_batch.pipeline.known_slides import Known

_TOLERANCE_PX = 0.1  # of the pixels that are filled, between an image's inverse and the true one


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What is asked.

    Attributes
    ----------
    source : SlideSpec
        The image.
    out : Path
        OME-Zarr or OME-TIFF, as its suffix tells.
    known : Known
        The transform, and the slide whose pixels are filled.
    inverse : bool
        Whether the image lies on the fixed slide and is brought to the moving one.
    reduced_from_mpp : float or None
        Pixel size in µm of the slide that the image is a reduced copy of, so that both cover the same; None if the
        centre of its first pixel lies where the slide's does.
    interpolation : {"nearest", "linear", "cubic"}
        Of the image's pixels.
    labels : bool
        Whether pixel values are names of things: the nearest pixel's, and no others in coarser levels.
    """

    source: SlideSpec
    out: Path
    known: Known
    inverse: bool = False
    reduced_from_mpp: float | None = None
    interpolation: Literal["nearest", "linear", "cubic"] = "linear"
    labels: bool = False

    @property
    def folder(self) -> Path:
        """Where what is not finished lies, beside the output."""
        return self.out.with_name(f".{self.out.name}.unfinished")

    def target(self) -> Grid:
        """Return the pixels that are filled; raises UserError if they are not known."""
        try:
            found = self.known.grid("moving" if self.inverse else "fixed")
        except MissingPixelSizeError as error:
            raise UserError(
                f"{self.out}: the slide to fill has no pixel size in its file. Give --onto-mpp UM"
            ) from error
        if found is None:
            remedy = "Give --onto SLIDE, or the pair's folder of a run for --transform"
            raise UserError(f"{self.out}: the slide whose pixels it shall have is not known. {remedy}")
        return found


def transform_image(request: ImageRequest) -> Grid:
    """Write an image on the pixels of the other slide, with its pyramid; it appears whole, by a rename.

    Block by block, as a run does it, in this process. For OME-TIFF an OME-Zarr is made first and removed again.

    Parameters
    ----------
    request : ImageRequest
        What is asked.

    Returns
    -------
    Grid
        The finest level.

    Raises
    ------
    UserError
        If the image cannot be read or is none of labels though it should be, the other slide is not known, or the
        transform has no inverse that is good enough.
    """
    require_image_name(request.out)
    info = _info(request.source)
    if request.labels:
        _require_labels(request.source, info)
    target = request.target()
    transform = _to_the_image(request, info, target)
    remove_tree(request.folder)
    request.folder.mkdir()
    try:
        work = _warped(request, info, target, transform)
        image = NgffImage(request.source.path.name, work.levels, info.channels, info.dtype, is_rgb=info.is_rgb)
        publish(work.image, image, request.out)
    finally:
        remove_tree(request.folder)
    return target


def _to_the_image(request: ImageRequest, info: SlideInfo, target: Grid) -> Composite:
    """Return the transform from the slide that is filled to the image, whose first pixel is its origin."""
    transform, image = request.known.transform, info.grid()
    if request.reduced_from_mpp is not None:
        image = _placed(request.source, image, request.reduced_from_mpp)
    if request.inverse:
        transform = inverted(transform, image, target, _TOLERANCE_PX * max(target.mpp_x, target.mpp_y))
    return transform.then(Affine(np.eye(2), -np.array([image.origin_x, image.origin_y])))


def _placed(spec: SlideSpec, image: Grid, mpp: float) -> Grid:
    """Return a reduced image where its slide lies: its first pixel is the mean of several of the slide's."""
    factors = image.mpp_x / mpp, image.mpp_y / mpp
    if min(factors) < 1:
        found = f"{image.mpp_x:g} µm, less than {mpp:g}"
        raise UserError(f"{spec.path}: no reduced copy, its pixel size is {found}. Leave out --reduced-from")
    return Grid(1, 1, mpp, mpp).coarser(*factors, image.width, image.height)


def _info(spec: SlideSpec) -> SlideInfo:
    try:
        with open_slide(spec) as image:
            return image.info
    except MissingPixelSizeError as error:
        raise UserError(f"{spec.path}: the file has no pixel size. Give --mpp UM") from error


def _warped(request: ImageRequest, info: SlideInfo, target: Grid, transform: Composite) -> WarpWork:
    """Fill the arrays of all levels."""
    write_json(transform, RegisterFiles(request.folder).transform)
    config = WarpConfig(interpolation="nearest" if request.labels else request.interpolation)
    image = PairFiles(request.folder).aligned_zarr
    work = WarpWork(image, request.folder, request.source, info, target, config, request.labels)
    for number in count():
        tasks = work.phase(number, "image")
        if tasks is None:
            break
        for task in tasks:
            task.function(task.payload)
    return work


def _require_labels(spec: SlideSpec, info: SlideInfo) -> None:
    if len(info.channels) != 1 or np.dtype(info.dtype).kind not in "iu":
        what = f"{len(info.channels)} channels of {info.dtype}"
        remedy = "Name one channel with --channel, or use transform image"
        raise UserError(f"{spec.path}: labels are one channel of whole numbers, not {what}. {remedy}")
