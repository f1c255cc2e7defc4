"""Representations block by block, equal to what the network gives on the whole image.

The whole is defined so: the image is continued by reflection (without repeating the border pixel, as often as needed)
by the halo on each side and on to a multiple of the stride; the network runs in evaluation mode; the result is cropped
to the image. A tile sees the same continued image, starts on the stride's grid, and keeps what lies a halo inside.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from comir_batch.core.errors import ModelError
from comir_batch.core.geometry import Region
from comir_batch.representation.device import resolve_device
from comir_batch.representation.field import field
from comir_batch.representation.memory import TILE, memory_mb
from comir_batch.representation.normalise import to_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from comir_batch.core.card import ModalityCard
    from comir_batch.representation.device import Device
    from comir_batch.representation.network import DenseUNet
    from comir_batch.representation.normalise import Range

Precision = Literal["float32", "bfloat16"]
# Threads of one process compute in turn, so that one reads or writes meanwhile: two networks at once gain nothing on a
# device that one keeps busy, and take twice the memory.
_COMPUTING = Lock()


class Representer:
    """Computes the representation of regions of a slide's working level.

    Parameters
    ----------
    network : DenseUNet
        With its weights.
    card : ModalityCard
        Architecture and input of the network.
    device : {"auto", "cpu", "cuda"}
        Where it runs.
    precision : {"float32", "bfloat16"}
        Arithmetic of the convolutions.
    tile : int
        Most pixels a side that the network sees at once, halo not counted.

    Raises
    ------
    ModelError
        If CUDA is asked for and there is none.
    """

    def __init__(
        self,
        network: DenseUNet,
        card: ModalityCard,
        device: Device = "auto",
        precision: Precision = "float32",
        tile: int = TILE,
    ) -> None:
        self.card = card
        self.halo, self.stride = field(card.architecture)
        self.precision: Precision = precision
        self.tile = max(tile // self.stride, 1) * self.stride
        self.device = resolve_device(device)
        self._network = network.eval().requires_grad_(requires_grad=False).to(self.device)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs

    @property
    def latent_channels(self) -> int:
        """Channels of the representation."""
        return self.card.architecture.latent_channels

    def memory_mb(self, block_side: int) -> int:
        """Return an upper bound in MB of a process that represents blocks of ``block_side`` pixels a side."""
        return memory_mb(self.card, block_side, self.tile)

    def represent(
        self,
        read: Callable[[Region], NDArray[np.generic]],
        size: tuple[int, int],
        region: Region,
        ranges: Sequence[Range],
    ) -> NDArray[np.float32]:
        """Return the representation of a region.

        Parameters
        ----------
        read : callable
            Takes a Region inside the image, gives its ``(C, Y, X)`` pixels; called once.
        size : (int, int)
            ``(width, height)`` of the image.
        region : Region
            Inside the image; need not be aligned to anything.
        ranges : sequence of Range
            Of the whole slide.

        Returns
        -------
        (latent, Y, X) float32
            Of the region's shape; NaN at pixels that are not finite, and nowhere else.

        Raises
        ------
        ModelError
            If the image has not the channels that the network takes.
        ValueError
            If the region leaves the image.
        """
        if region.within(*size) != region:
            raise ValueError(f"{region} leaves the image of {size[0]} x {size[1]} pixels")
        bounds = self._bounds(region, size)
        seen = read(bounds)
        pixels = to_input(seen, self.card.input, ranges)
        self._check_channels(len(pixels))
        out = np.empty((self.latent_channels, *region.shape), np.float32)
        for tile in self._tiles(region):
            halo = tile.grown(self.halo)
            rows = reflected(halo.y0, halo.y1, size[1]) - bounds.y0
            columns = reflected(halo.x0, halo.x1, size[0]) - bounds.x0
            result = self.run(pixels[:, rows[:, None], columns])
            part = tile.intersection(region)
            if part is not None:
                inside = part.shifted(-halo.x0, -halo.y0).slices
                out[:, *part.shifted(-region.x0, -region.y0).slices] = result[:, *inside]
        known = np.isfinite(seen[:, *region.shifted(-bounds.x0, -bounds.y0).slices]).all(axis=0)
        out[:, ~known] = np.nan
        return out

    def _tiles(self, region: Region) -> Iterator[Region]:
        """Cover a region with tiles of one shape whose origins lie on the stride's grid."""
        x0, columns, width = self._cut(region.x0, region.x1)
        y0, rows, height = self._cut(region.y0, region.y1)
        for row in range(rows):
            for column in range(columns):
                x, y = x0 + column * width, y0 + row * height
                yield Region(x, y, x + width, y + height, region.level)

    def _cut(self, start: int, stop: int) -> tuple[int, int, int]:
        """Return the aligned start, the number of tiles and their length along one axis."""
        start -= start % self.stride
        count = -(-(stop - start) // self.tile)
        strides = -(-(stop - start) // (count * self.stride))
        return start, count, strides * self.stride

    def _bounds(self, region: Region, size: tuple[int, int]) -> Region:
        """Return the pixels inside the image that the tiles of a region see, directly or reflected."""
        x0, columns, width = self._cut(region.x0, region.x1)
        y0, rows, height = self._cut(region.y0, region.y1)
        x = reflected(x0 - self.halo, x0 + columns * width + self.halo, size[0])
        y = reflected(y0 - self.halo, y0 + rows * height + self.halo, size[1])
        return Region(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1, region.level)

    def run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the ``(latent, Y, X)`` output for a normalised ``(C, Y, X)`` image with sides on the stride.

        Any number of threads may call it; one network of the process runs at a time.
        """
        with self._computing():
            return _array(self._network(self._input(image)))

    def features(self, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what `run` does and the ``(K, Y / stride, X / stride)`` features of the bottleneck behind it."""
        with self._computing():
            output, bottleneck = self._network.with_bottleneck(self._input(image))
            return _array(output), _array(bottleneck)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        bfloat = self.precision == "bfloat16"
        with _COMPUTING, torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=bfloat):
            yield

    def _input(self, image: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(image)[None].to(self.device, memory_format=torch.channels_last)

    def _check_channels(self, channels: int) -> None:
        wanted = self.card.architecture.in_channels
        if channels != wanted:
            raise ModelError(
                f"the network for {self.card.modality!r} takes {wanted} channels, the slide has {channels}; "
                "choose a channel of the slide, or another model"
            )


def _array(batch: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = batch[0].float().cpu().numpy()
    return array


def reflected(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the indices into an axis of ``size`` pixels at ``start..stop`` of its endless reflection."""
    if size == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (size - 1)
    index = np.arange(start, stop) % period
    return np.minimum(index, period - index)
