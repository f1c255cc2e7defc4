"""A Dask scheduler as a process of its own, joined by a file: ``python -m comir_batch.execution.scheduler``."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dask
from distributed import Scheduler

from comir_batch.core.errors import ConfigError
from comir_batch.execution.address import own_address
from comir_batch.execution.security import make_certificate, remove_certificate
from comir_batch.execution.settings import DASK_SETTINGS, quieten

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal asks it to end; the file and the certificate go with it."""
    options = _parser().parse_args(arguments)
    quieten()
    file: Path = options.scheduler_file.absolute()
    os.umask(0o077)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)  # of an earlier scheduler, which workers must not mistake for this one
    try:
        with dask.config.set(DASK_SETTINGS):
            asyncio.run(_serve(options, file))
    except (ConfigError, OSError, ValueError) as error:
        sys.stderr.write(f"comir-batch scheduler: cannot listen: {error}\n")
        return 3
    finally:
        file.unlink(missing_ok=True)
        remove_certificate(file.parent / "tls")
    return 0


async def _serve(options: argparse.Namespace, file: Path) -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    where = {"interface": options.interface} if options.interface else {"host": options.host or own_address()}
    scheduler = Scheduler(
        **where,
        port=options.port,
        protocol="tls://",
        security=make_certificate(file.parent / "tls"),
        dashboard=bool(options.dashboard),
        dashboard_address=options.dashboard or "127.0.0.1:0",
        scheduler_file=str(file),
    )
    async with scheduler:
        await asked.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m comir_batch.execution.scheduler", description=__doc__)
    parser.add_argument("--scheduler-file", type=Path, required=True, help="file to write the address to")
    parser.add_argument("--interface", default="", help="network interface to listen on")
    parser.add_argument("--host", default="", help="address to listen on, instead; the host's name by default")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dashboard", default="127.0.0.1:0", help="address of the dashboard; empty for none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
