"""The parent's side of elastix: one long-lived child process, fed requests as files.

The child takes some four CPU seconds to load, so a worker starts one and keeps it. A request that fails, crashes or
takes too long is an error with its reason; the next one finds a fresh child.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from comir_batch.core.errors import OutOfTimeError, RegistrationError, ShortOfMemoryError
from comir_batch.registration.elastix_maps import read_chain, render, write_chain

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from comir_batch.core.geometry import Grid
    from comir_batch.core.transform import Composite
    from comir_batch.registration.elastix_maps import ParameterMap
    from comir_batch.registration.images import RegistrationImage

LOAD_LIMIT_S = 300.0  # ten to twenty seconds are usual; many workers that start at once on a slow disk need more


@dataclass(frozen=True, slots=True, eq=False)
class ElastixRequest:
    """One run of elastix.

    Attributes
    ----------
    fixed, moving : RegistrationImage
        Images with the masks that samples come from.
    stages : tuple of ParameterMap
        One for each transform, run one after the other.
    initial : Composite
        Fixed µm to moving µm; where the first stage starts.
    folder : Path
        Takes the parameter files, ``TransformParameters.<n>.txt`` and ``elastix.log``; made if it is missing.
    time_limit_s : float
        After so many seconds the child is killed.
    beside : (RegistrationImage, RegistrationImage) or None
        Fixed and moving images of the second of three metrics; the first and the third get the others.
    landmarks : ((N, 2) array, (N, 2) array) or None
        Fixed and moving points of a metric of corresponding points, in µm.
    """

    fixed: RegistrationImage
    moving: RegistrationImage
    stages: tuple[ParameterMap, ...]
    initial: Composite
    folder: Path
    time_limit_s: float
    beside: tuple[RegistrationImage, RegistrationImage] | None = None
    landmarks: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ElastixResult:
    """What elastix found: the initial transform followed by its own, fixed µm to moving µm, and how long it took."""

    transform: Composite
    seconds: float


class ElastixProcess:
    """A child process that holds elastix; started by the first request, safe to use from several threads.

    Parameters
    ----------
    threads : int
        Of elastix; the result depends on it.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._child: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        child = self._child
        return child.pid if child and child.poll() is None else None

    def register(self, request: ElastixRequest) -> ElastixResult:
        """Run elastix and return what it found.

        Raises
        ------
        RegistrationError
            If elastix failed (in its own words) or crashed.
        OutOfTimeError
            If it took too long.
        """
        request.folder.mkdir(parents=True, exist_ok=True)
        files = request.folder / "request"
        try:
            _write(request, files)
            with self._lock:
                answer = self._ask(str(request.folder.resolve()), request.time_limit_s)
        finally:
            shutil.rmtree(files, ignore_errors=True)
        if not answer["ok"]:
            raise RegistrationError(f"elastix failed: {answer['error']} (see {request.folder / 'elastix.log'})")
        found = read_chain(request.folder / f"TransformParameters.{n}.txt" for n in range(len(request.stages)))
        return ElastixResult(request.initial.then(*found.parts), float(answer["seconds"]))

    def close(self) -> None:
        """End the child; safe to call twice, and another request starts a fresh one."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()

    def _ask(self, output: str, time_limit_s: float) -> dict[str, Any]:
        try:
            child = self._running()
            answer = _exchange(child, output)
        except BaseException:
            self.close()  # not loaded, or its answer is under way and would be taken for the next request's
            raise
        if answer is None:
            too_long = f"elastix was stopped at its time limit of {time_limit_s:g} s; raise register.time_limit_s"
            code = child.wait()
            if code == -signal.SIGKILL:  # nobody but the kernel kills it so, when memory runs out
                raise ShortOfMemoryError("elastix was killed (SIGKILL), as the kernel does when memory runs out")
            raise (OutOfTimeError if code == -signal.SIGALRM else RegistrationError)(_death(code, too_long))
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self.pid is None:
            self.close()
            self._child = _started(self.threads)
            answer = _answer(self._child)
            if answer is None:
                too_long = f"loading itk took longer than {LOAD_LIMIT_S:g} s; is the disk that it lies on stalled?"
                raise RegistrationError(f"cannot start elastix: {_death(self._child.wait(), too_long)}")
            if not answer["ok"]:
                raise RegistrationError(f"cannot start elastix: {answer['error']}; is itk-elastix installed here?")
        assert self._child is not None  # noqa: S101 - for mypy
        return self._child


def _started(threads: int) -> subprocess.Popen[str]:
    """Start the child from a thread that lives as long as it: the kernel's parent-death signal follows the thread."""
    started: list[subprocess.Popen[str] | OSError] = []
    ready = threading.Event()

    def keep() -> None:
        try:
            child = _spawn(threads)
        except OSError as error:
            started.append(error)
            ready.set()
            return
        started.append(child)
        ready.set()
        child.wait()

    threading.Thread(target=keep, name="elastix-keeper", daemon=True).start()
    ready.wait()
    if isinstance(started[0], OSError):
        raise RegistrationError(f"cannot start elastix: {started[0]}") from started[0]
    return started[0]


def _spawn(threads: int) -> subprocess.Popen[str]:
    # ITK's default threader crashes when its number of threads is set, and is slow on machines with many cores
    environment = {"ITK_GLOBAL_DEFAULT_THREADER": "Pool", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)}
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "comir_batch.registration.elastix_child", str(os.getpid()), str(LOAD_LIMIT_S)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        process_group=0,  # a terminal's Ctrl-C is the driver's affair; it would end the child while it loads
    )


def _exchange(child: subprocess.Popen[str], output: str) -> dict[str, Any] | None:
    assert child.stdin is not None  # noqa: S101 - for mypy
    try:
        child.stdin.write(json.dumps({"output": output}) + "\n")
        child.stdin.flush()
    except BrokenPipeError:
        return None
    return _answer(child)


def _answer(child: subprocess.Popen[str]) -> dict[str, Any] | None:
    assert child.stdout is not None  # noqa: S101 - for mypy
    line = child.stdout.readline()
    return json.loads(line) if line.endswith("\n") else None


def _death(code: int, too_long: str) -> str:
    if code == -signal.SIGALRM:
        return too_long
    if code < 0:
        return f"elastix crashed: {signal.Signals(-code).name} (signal {-code})"
    return f"elastix' process ended by itself with exit code {code}"


def _write(request: ElastixRequest, files: Path) -> None:
    files.mkdir(parents=True, exist_ok=True)
    pairs = [(request.fixed, request.moving), *([request.beside] if request.beside else [])]
    for number, pair in enumerate(pairs):
        for name, image in zip(("fixed", "moving"), pair, strict=True):
            np.save(files / f"{name}{number}.npy", np.ascontiguousarray(image.pixels, dtype=np.float32))
            np.save(files / f"{name}{number}_mask.npy", image.mask.astype(np.uint8))
    for name, points in zip(("fixed", "moving"), request.landmarks or (), strict=False):
        lines = ["point", str(len(points)), *(f"{x!r} {y!r}" for x, y in points.tolist())]
        (files / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parameters = [f"Parameters.{number}.txt" for number in range(len(request.stages))]
    for name, stage in zip(parameters, request.stages, strict=True):
        (request.folder / name).write_text(render(stage), encoding="utf-8")
    initial = write_chain(request.initial, request.fixed.grid, request.folder, "InitialTransform")
    message = {
        "images": [{"fixed": _place(fixed.grid), "moving": _place(moving.grid)} for fixed, moving in pairs],
        "landmarks": request.landmarks is not None,
        "parameters": parameters,
        "initial": initial.name if initial else "",
        "time_limit_s": request.time_limit_s,
    }
    (files / "request.json").write_text(json.dumps(message), encoding="utf-8")


def _place(grid: Grid) -> dict[str, list[float]]:
    return {"spacing": [grid.mpp_x, grid.mpp_y], "origin": [grid.origin_x, grid.origin_y]}


_shared: dict[int, ElastixProcess] = {}


def shared_process(threads: int) -> ElastixProcess:
    """Return this process's own child, with so many threads; ended when the interpreter exits."""
    mine = _shared.get(os.getpid())
    if mine is None or mine.threads != threads:
        if mine:
            mine.close()
        mine = _shared[os.getpid()] = ElastixProcess(threads)
    return mine


@atexit.register
def _close_shared() -> None:
    mine = _shared.pop(os.getpid(), None)  # a forked process must leave its parent's alone
    if mine:
        mine.close()
