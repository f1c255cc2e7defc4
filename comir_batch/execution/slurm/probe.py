"""What a job finds on its node, as JSON: ``python -m comir_batch.execution.slurm.probe``, which doctor submits."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comir_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 20.0
_NAME_GPUS = "import torch; [print(torch.cuda.get_device_name(n)) for n in range(torch.cuda.device_count())]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Look around and write what was found to a file, which appears whole."""
    parser = argparse.ArgumentParser(prog="python -m comir_batch.execution.slurm.probe", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--connect", nargs=2, required=True, metavar=("HOST", "PORT"), help="where a driver would be")
    options = parser.parse_args(arguments)
    host, port = options.connect
    found = {
        "node": os.environ.get("SLURMD_NODENAME", platform.node()),
        "python": platform.python_version(),
        "comir-batch": comir_batch.__version__,
        "distributed": version("distributed"),
        "gpus": _gpus(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "scratch": _scratch(),
        "driver": _reach(host, int(port)),
    }
    partial = options.out.with_name(f"{options.out.name}.partial")
    partial.write_text(json.dumps(found), encoding="utf-8")
    partial.replace(options.out)
    return 0


def _gpus() -> list[str]:
    # In another process, which may fail: there may be no torch, or one that the driver of the GPU is too old for.
    told = subprocess.run([sys.executable, "-c", _NAME_GPUS], check=False, capture_output=True, text=True)  # noqa: S603
    return told.stdout.splitlines()


def _scratch() -> dict[str, Any]:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"comir-batch")
    except OSError as error:
        return {"folder": folder, "problem": error.strerror or str(error)}
    return {"folder": folder, "free_gb": shutil.disk_usage(folder).free / 1e9}


def _reach(host: str, port: int) -> str:
    """Return why a connection cannot be made; empty if it can."""
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S):
            return ""
    except OSError as error:
        return error.strerror or str(error)


if __name__ == "__main__":
    sys.exit(main())
