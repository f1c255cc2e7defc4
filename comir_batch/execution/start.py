"""Starting the executor that a config asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comir_batch.execution.local import local_executor
from comir_batch.execution.serial import SerialExecutor

if TYPE_CHECKING:
    from pathlib import Path

    from comir_batch.core.config import ExecutionConfig
    from comir_batch.core.task import Executor
    from comir_batch.execution.stop import StopRequest


def start_executor(config: ExecutionConfig, stop: StopRequest, logs: Path | None = None) -> Executor:
    """Return the executor that ``config.executor`` names, ready to run; the caller closes it.

    Parameters
    ----------
    config : ExecutionConfig
        The device must be resolved already.
    stop : StopRequest
        What the executor looks at between tasks.
    logs : Path or None
        Folder for the logs of worker processes, if there are any; None for a temporary one.
    """
    if config.executor == "serial":
        return SerialExecutor(stop)
    return local_executor(config, stop=stop, logs=logs)
