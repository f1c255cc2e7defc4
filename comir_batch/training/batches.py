"""Batches of crops, read ahead; which crops a batch holds depends on the seed and its number alone."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from comir_batch.training.augment import disturbed
from comir_batch.training.crops import PairReader, shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from comir_batch.core.card import ModalityCard
    from comir_batch.training.config import TrainConfig
    from comir_batch.training.split import Part

_AHEAD = 2


class Batch(NamedTuple):
    """Crops of both modalities at the same places, each ``(N, C, crop, crop)`` float32."""

    fixed: Tensor
    moving: Tensor


class BatchSource:
    """Reads batches from parts of aligned pairs, each part as often as it has room for crops, if it has any.

    Parameters
    ----------
    parts : sequence of Part
        At least one.
    modalities : (ModalityCard, ModalityCard)
        Of the fixed and of the moving slides.
    stained : (bool, bool)
        Which of them are brightfield images in colour.
    mpp : float
        Pixel size of the crops in µm.
    config : TrainConfig
        Sizes, augmentation and seed.

    Raises
    ------
    SlideError
        If no part has a place for a crop, or a part has no tissue.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        modalities: tuple[ModalityCard, ModalityCard],
        stained: tuple[bool, bool],
        mpp: float,
        config: TrainConfig,
    ) -> None:
        self._stained, self._config = stained, config
        self._readers = [PairReader(part, modalities, mpp) for part in parts]
        self._shares = shares(self._readers, config.crop)

    def batch(self, number: int) -> Batch:
        """Return one batch."""
        rng = np.random.default_rng([self._config.seed, number])
        fixed, moving = [], []
        for index in rng.choice(len(self._readers), self._config.batch, p=self._shares):
            reader = self._readers[index]
            pose = reader.draw(rng, self._config.crop)
            first, second = reader.read(pose, self._config.crop, self._shift(rng))
            fixed.append(disturbed(first, rng, self._config.augmentation, stained=self._stained[0]))
            moving.append(disturbed(second, rng, self._config.augmentation, stained=self._stained[1]))
        return Batch(torch.from_numpy(np.stack(fixed)), torch.from_numpy(np.stack(moving)))

    def _shift(self, rng: np.random.Generator) -> tuple[float, float]:
        """Draw how far the moving crop lies beside the fixed one, in pixels."""
        jitter = self._config.jitter
        return (float(rng.normal(0, jitter)), float(rng.normal(0, jitter))) if jitter else (0.0, 0.0)

    def ahead(self, first: int, stop: int) -> Iterator[tuple[int, Batch]]:
        """Yield the batches from ``first`` on, and their numbers, while threads read the next ones."""
        numbers = iter(range(first, stop))
        with ThreadPoolExecutor(self._config.loaders, "crops") as pool:
            waiting = deque((number, pool.submit(self.batch, number)) for number in islice(numbers, self._limit))
            while waiting:
                number, batch = waiting.popleft()
                ready = batch.result()
                following = next(numbers, None)
                if following is not None:
                    waiting.append((following, pool.submit(self.batch, following)))
                yield number, ready

    @property
    def _limit(self) -> int:
        return _AHEAD * self._config.loaders
