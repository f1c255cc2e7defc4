"""A pair as the pipeline knows it once its headers are read and its model is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.pipeline.working import Working, default_mpp, working_level

if TYPE_CHECKING:
    from comir_batch.core.config import ChunkConfig
    from comir_batch.core.manifest import PairRow
    from comir_batch.core.slide import SlideInfo, SlideSpec
    from comir_batch.representation.store import Model


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide: how to open it, its headers, and the digest that stands for its content."""

    spec: SlideSpec
    info: SlideInfo
    digest: str
    modality: str

    def working(self, model: Model | None, config: ChunkConfig) -> Working:
        """Return the level to work at: the model's pixel size, else the configured one."""
        target = default_mpp(self.info, config) if model is None else model.card.mpp
        return working_level(self.info, target)


@dataclass(frozen=True, slots=True)
class Pair:
    """A row of the manifest, ready to be planned.

    Attributes
    ----------
    model : Model or None
        None means the raw images.
    model_choice : str
        A sentence that says how the model was chosen.
    assumed : tuple of str
        Sentences about what was not read from the files; they stand in the report.
    file_digests : dict
        Digest of each optional file that the row names, by column.
    """

    row: PairRow
    fixed: Slide
    moving: Slide
    model: Model | None
    model_choice: str
    assumed: tuple[str, ...]
    file_digests: dict[str, str]

    @property
    def name(self) -> str:
        """The pair_id."""
        return self.row.pair_id
