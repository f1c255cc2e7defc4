"""A transform and the two slides that it belongs to, as far as the command line or a run's records tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from comir_batch.core.errors import UserError
from comir_batch.core.geometry import Grid
from comir_batch.core.manifest import read_manifest
from comir_batch.core.slide import SlideSpec
from comir_batch.io.open import open_slide
from comir_batch.io.transform_files import read_transform
from comir_batch.pipeline.files import read_json
from comir_batch.pipeline.layout import Layout, PairFiles

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.transform import Composite

Side: TypeAlias = Literal["fixed", "moving"]


@dataclass(frozen=True, slots=True)
class Given:
    """What was said of a slide.

    Attributes
    ----------
    path : Path or None
        Its file.
    mpp : float or None
        Pixel size of level 0 in µm; overrides the file's.
    """

    path: Path | None = None
    mpp: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A transform and its slides.

    Attributes
    ----------
    source : Path
        File of the transform, or the folder of a pair in a run.
    transform : Composite
        Fixed to moving, in µm.
    fixed, moving : Given
        What was said of them; what was not is looked up in the run that the transform lies in.
    """

    source: Path
    transform: Composite
    fixed: Given = Given()
    moving: Given = Given()

    @classmethod
    def read(cls, source: Path, fixed: Given, moving: Given) -> Known:
        """Read the transform; the slides are not opened.

        Raises
        ------
        UserError
            If the transform cannot be read.
        """
        path = PairFiles(source).transform_json if source.is_dir() else source
        if source.is_dir() and not path.is_file():
            raise UserError(f"{source}: a folder without transform.json. Give a pair's folder, RUN/pairs/PAIR")
        return cls(source, read_transform(path), fixed, moving)

    def grid(self, side: Side) -> Grid | None:
        """Return level 0 of a slide; where only a pixel size was given, that is all that is true of it.

        None if nothing tells the slide or its pixel size; UserError if the slide cannot be opened.
        """
        given = self.fixed if side == "fixed" else self.moving
        if given.path is None and given.mpp is not None:
            return Grid(1, 1, given.mpp, given.mpp)
        spec = _spec(given) or self._recorded(side)
        return None if spec is None else slide_grid(spec)

    def _recorded(self, side: Side) -> SlideSpec | None:
        """Return the slide of the pair whose folder the transform lies in, as the run's manifest names it."""
        folder = (self.source if self.source.is_dir() else self.source.parent).resolve()
        layout = Layout(folder.parent.parent)
        if folder != layout.pair(folder.name).folder or not layout.run_json.is_file():
            return None
        manifest = type(folder)(read_json(layout.run_json)["manifest"]["path"])
        if not manifest.is_file():
            return None
        row = next((row for row in read_manifest(manifest).rows if row.pair_id == folder.name), None)
        return None if row is None else getattr(row, side)


@lru_cache(maxsize=8)
def slide_grid(spec: SlideSpec) -> Grid:
    """Return level 0 of a slide, from its headers; raises UserError if it cannot be opened."""
    with open_slide(spec) as slide:
        return slide.info.grid()


def _spec(given: Given) -> SlideSpec | None:
    return None if given.path is None else SlideSpec(given.path.resolve(), mpp=given.mpp)
