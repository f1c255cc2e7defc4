"""The folders that tasks read besides the run directory: a container must see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from comir_batch.pipeline.pair import Pair


def folders_read(pairs: Iterable[Pair]) -> tuple[Path, ...]:
    """Return the folders of slides, added models and the small files of the manifest, each once.

    Not those of shipped models: the container has its own, and what is a folder in it need not be one outside.
    """
    return tuple(dict.fromkeys(folder.absolute() for pair in pairs for folder in _of_pair(pair)))


def _of_pair(pair: Pair) -> Iterator[Path]:
    row = pair.row
    yield pair.fixed.spec.path.parent
    yield pair.moving.spec.path.parent
    optional = row.initial_transform, row.fixed_mask, row.moving_mask, row.fixed_landmarks, row.moving_landmarks
    yield from (path.parent for path in optional if path is not None)
    if pair.model is not None and not pair.model.shipped:
        yield pair.model.folder
