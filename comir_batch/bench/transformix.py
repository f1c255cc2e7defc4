"""transformix on one image, again and again, in a process of its own that has the image in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil

from comir_batch.core.errors import TaskError
from comir_batch.registration.elastix_maps import write_chain

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite


class Transformix:
    """A process that holds transformix and one moving image; started by the first warp, ended by `close`.

    Parameters
    ----------
    pixels : (Y, X) array
        The moving image.
    grid : Grid
        Its pixels in µm; the fixed image has the same.
    folder : Path
        For the files between the processes.
    """

    def __init__(self, pixels: NDArray[np.generic], grid: Grid, folder: Path) -> None:
        self._pixels, self._grid, self._folder = pixels, grid, folder
        self._child: subprocess.Popen[str] | None = None
        self._files: dict[Composite, str] = {}

    def warp(self, transform: Composite) -> Path:
        """Let transformix warp, linearly interpolated, and return where the first result of this transform lies.

        Raises
        ------
        TaskError
            If the process ends or cannot be started.
        """
        child = self._running()
        self._exchange(child, self._file(transform), "done")
        return self._folder / f"{self._file(transform)}.npy"

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process up to now; 0 before it is started."""
        if self._child is None:
            return 0.0
        times = psutil.Process(self._child.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _file(self, transform: Composite) -> str:
        """Write a transform's files once, and return the last one's name."""
        if transform not in self._files:
            name = f"Transform{len(self._files)}"
            last = write_chain(transform, self._grid, self._folder, name)
            if last is None:
                raise TaskError("transformix has no file for a transform that moves nothing")
            self._files[transform] = last.name
        return self._files[transform]

    def _running(self) -> subprocess.Popen[str]:
        if self._child is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            np.save(self._folder / "moving.npy", self._pixels)
            grid = self._grid
            place = {"spacing": [grid.mpp_x, grid.mpp_y], "origin": [grid.origin_x, grid.origin_y]}
            (self._folder / "place.json").write_text(json.dumps(place), encoding="utf-8")
            self._child = self._started()
            self._exchange(self._child, "", "ready")
        return self._child

    def _started(self) -> subprocess.Popen[str]:
        # as where it registers, see registration/elastix_process.py
        environment = {**os.environ, "ITK_GLOBAL_DEFAULT_THREADER": "Pool"}
        command = [sys.executable, "-m", "comir_batch.bench.transformix_child", str(self._folder.resolve())]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, text=True, encoding="utf-8", env=environment, **pipes)  # noqa: S603  our own module

    def _exchange(self, child: subprocess.Popen[str], line: str, expected: str) -> None:
        assert child.stdin is not None  # noqa: S101  for mypy
        assert child.stdout is not None  # noqa: S101  for mypy
        if line:
            child.stdin.write(f"{line}\n")
            child.stdin.flush()
        if child.stdout.readline().strip() != expected:
            self.close()
            raise TaskError("the process that holds transformix ended; is itk-elastix installed?")
