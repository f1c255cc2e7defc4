"""The process that holds elastix: reads requests from stdin, one JSON line each, and answers on stdout.

Started as ``python -m comir_batch.registration.elastix_child <pid of the parent> <seconds to load in>``. elastix holds
the interpreter's lock for its whole run and may crash, so nothing here relies on Python code running beside it: the
kernel ends the process when its parent dies or its time is up. Loading may stall too, on a file system that hangs, so
heavy libraries are imported only once the kernel watches. Of itk, those modules are imported that hold elastix' own
classes: its names for them (`itk.ElastixRegistrationMethod`) load all of it, which takes 19 instead of 4 CPU seconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_ELASTIX, _PARAMETERS, _BUFFERS = _MODULES = (
    "itk.itkElastixRegistrationMethodPython",
    "itk.elxParameterObjectPython",
    "itk.itkPyBufferPython",
)


def main() -> None:
    """Serve until stdin ends."""
    _die_with_parent(int(sys.argv[1]))
    _limit_time(float(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = _protected_stdout()
    _reply(replies, _answered(_load))
    _limit_time(0)
    for line in sys.stdin:
        _reply(replies, _answered(partial(_register, Path(json.loads(line)["output"]))))


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit("the parent process is gone")


def _protected_stdout() -> TextIO:
    """Return the real stdout; whatever else prints to file descriptor 1 goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=replies, flush=True)


def _answered(work: Callable[[], object]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        work()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the parent's to report
        return {"ok": False, "error": " ".join(str(error).split()) or type(error).__name__}
    return {"ok": True, "seconds": time.monotonic() - began}


def _load() -> None:
    """Import numpy, and of itk what elastix needs, now rather than on the first request."""
    import numpy as np  # noqa: F401, PLC0415 - under the time limit

    for name in _MODULES:
        import_module(name)


def _register(output: Path) -> None:
    os.chdir(output)  # relative names from here on: elastix' files have no way to write a quote or a newline in a path
    files = Path("request")
    request = json.loads((files / "request.json").read_text(encoding="utf-8"))
    _limit_time(request["time_limit_s"])
    try:
        images = [_pair(files, number, places) for number, places in enumerate(request["images"])]
        _method(files, request, images).UpdateLargestPossibleRegion()
    except RuntimeError as error:
        raise RuntimeError(_reason(Path("elastix.log")) or str(error)) from error
    finally:
        _limit_time(0)


def _limit_time(seconds: float) -> None:
    """Let the kernel end this process after so many seconds; 0 for never."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _method(folder: Path, request: dict[str, Any], images: list[list[_Masked]]) -> Any:
    """Return elastix, set up; it sees the images only as long as the caller has them."""
    (fixed, moving), *further = images if len(images) == 1 else (*images, images[0])
    method = import_module(_ELASTIX).itkElastixRegistrationMethodIF2IF2.New()
    method.SetFixedImage(fixed.pixels)
    method.SetMovingImage(moving.pixels)
    method.SetFixedMask(fixed.mask)
    method.SetMovingMask(moving.mask)
    for fixed, moving in further:
        method.AddFixedImage(fixed.pixels)
        method.AddMovingImage(moving.pixels)
        method.AddFixedMask(fixed.mask)
        method.AddMovingMask(moving.mask)
    if request["landmarks"]:
        method.SetFixedPointSetFileName(str(folder / "fixed.txt"))
        method.SetMovingPointSetFileName(str(folder / "moving.txt"))
    parameters = import_module(_PARAMETERS).elastixParameterObject.New()
    parameters.ReadParameterFiles(request["parameters"])
    method.SetParameterObject(parameters)
    if request["initial"]:
        method.SetInitialTransformParameterFileName(request["initial"])
    method.SetOutputDirectory(".")
    method.SetLogFileName("elastix.log")
    method.LogToFileOn()
    method.LogToConsoleOff()
    return method


class _Masked(NamedTuple):
    pixels: Any
    mask: Any


def _pair(folder: Path, number: int, places: dict[str, Any]) -> list[_Masked]:
    """Return the fixed and the moving image of one metric."""
    return [
        _Masked(*(_image(folder / f"{name}{number}{kind}.npy", places[name]) for kind in ("", "_mask")))
        for name in ("fixed", "moving")
    ]


def _image(path: Path, place: dict[str, list[float]]) -> Any:
    import numpy as np  # noqa: PLC0415 - loaded by now

    pixels, buffers = np.load(path), import_module(_BUFFERS)
    kind = buffers.itkPyBufferIF2 if pixels.dtype == np.float32 else buffers.itkPyBufferIUC2
    image = kind.GetImageViewFromArray(pixels)
    image.SetSpacing(place["spacing"])
    image.SetOrigin(place["origin"])
    return image


def _reason(log: Path) -> str:
    """Return the last error that elastix described in its log, on one line."""
    marker = "Description:"
    if not log.exists():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line.split(marker, 1)[1].strip() for line in lines if marker in line]
    return found[-1] if found else ""


if __name__ == "__main__":
    main()
