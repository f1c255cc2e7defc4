"""So many threads for everybody: the settings of each library, as far as it has one."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",  # zarrs, zarrista
    "TIFFFILE_NUM_THREADS",
    "VIPS_CONCURRENCY",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Limit the threads of libraries that are told by their environment, before they are imported."""
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def libraries_limited(threads: int) -> Iterator[None]:
    """Limit the threads of libraries that are told by a call."""
    import cv2  # noqa: PLC0415  `limited` comes before it
    import dask  # noqa: PLC0415
    import zarr  # noqa: PLC0415

    from comir_batch.training.speed import with_threads  # noqa: PLC0415

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        with (
            with_threads(threads),
            dask.config.set(num_workers=threads),
            zarr.config.set({"threading.max_workers": threads}),
        ):
            yield
    finally:
        cv2.setNumThreads(before)
