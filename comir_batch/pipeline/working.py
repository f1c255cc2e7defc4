"""The working level: at which pixel size a slide is represented and registered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from comir_batch.core.slide import SlideInfo  # noqa: TC001  part of a value type that is pickled

if TYPE_CHECKING:
    from comir_batch.core.config import ChunkConfig
    from comir_batch.core.geometry import Grid


@dataclass(frozen=True, slots=True)
class Working:
    """A pyramid level, and the whole-number factor by which its pixels are averaged.

    Attributes
    ----------
    level : int
        Level of the slide that is read.
    factor : int
        Pixels of it that are averaged along each axis.
    """

    info: SlideInfo
    level: int
    factor: int

    @property
    def grid(self) -> Grid:
        """Pixels of the working level in µm."""
        return self.info.grid(self.level).reduced(self.factor)

    @property
    def mpp(self) -> float:
        """Mean pixel size of the working level in µm."""
        return (self.grid.mpp_x + self.grid.mpp_y) / 2


def working_level(info: SlideInfo, target_mpp: float) -> Working:
    """Choose the level and factor whose pixel size comes nearest to a target without ever being interpolated.

    The coarsest level that is at most a tenth coarser than the target is read and averaged by a whole number.
    """
    sizes = [(info.grid(k).mpp_x + info.grid(k).mpp_y) / 2 for k in range(len(info.levels))]
    fine_enough = [k for k, size in enumerate(sizes) if size <= target_mpp * 1.1]
    level = max(fine_enough, key=lambda k: sizes[k], default=0)
    return Working(info, level, max(1, round(target_mpp / sizes[level])))


def default_mpp(info: SlideInfo, config: ChunkConfig) -> float:
    """Return the pixel size to work at without a model: the configured one, or coarser for slides beyond `max_side`."""
    width, height = info.grid().size_um
    return max(config.mpp, max(width, height) / config.max_side)
