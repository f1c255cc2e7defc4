"""From errors to messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from comir_batch.cli.tables import print_table
from comir_batch.core.errors import ManifestError, NoWorkersError, StoppedError, UserError
from comir_batch.core.passing import OUT_OF_FILES, PASSING, os_errno

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from comir_batch.core.errors import Problem

BAD_INPUT = 3
NO_WORKERS = 5
RESUMABLE = 75
UNREAD = 141  # as a shell tells that the reader of a pipe went away: 128 + SIGPIPE
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_STOPS = (
    ({errno.ENOSPC, errno.EDQUOT}, "operating", "Make room"),
    ({errno.EFBIG}, "operating", "Let it write larger files (ulimit -f)"),
    (OUT_OF_FILES, "operating", "Let it open more files (ulimit -n)"),
    (PASSING, "file", "See whether it is well"),
)


@contextmanager
def exit_codes(again: str = "the same command resumes") -> Iterator[None]:
    """Turn the errors that a user can understand into a message on stderr and typer.Exit with their code.

    Parameters
    ----------
    again : str
        How work goes on that a disk or a file system has stopped.
    """
    try:
        yield
    except ManifestError as error:
        print_problems(error.problems)
        raise typer.Exit(BAD_INPUT) from error
    except UserError as error:
        _fail(error, BAD_INPUT)
    except NoWorkersError as error:
        _fail(error, NO_WORKERS)
    except StoppedError as error:
        _fail(error, error.exit_code)
    except BrokenPipeError as error:
        _silence_stdout()
        raise typer.Exit(UNREAD) from error
    except (OSError, RuntimeError) as error:  # zarrs raises the latter
        number = os_errno(error)
        for numbers, stopper, remedy in _STOPS:
            if number in numbers:
                _fail(f"stopped by the {stopper} system: {error}. {remedy}; {again}", RESUMABLE)
        if number in _FORBIDDEN:
            _fail(f"{error}. Check that the folder can be written", BAD_INPUT)
        raise


def print_problems(problems: Sequence[Problem]) -> None:
    """Print what is wrong with a manifest on stderr: a table on a terminal, a line a problem elsewhere."""
    rows = [(str(row or "-"), column, reason, remedy) for row, column, reason, remedy in problems]
    lines = [str(problem) for problem in problems]
    title = "1 problem" if len(rows) == 1 else f"{len(rows)} problems"
    print_table(f"{title} in the manifest", ("row", "column", "problem", "what to do"), rows, lines=lines, stderr=True)


def _silence_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter would complain of the pipe once more as it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _fail(message: object, code: int) -> NoReturn:
    typer.echo(f"comir-batch: {message}", err=True)
    raise typer.Exit(code)


def require_files(*paths: Path | None) -> None:
    """Raise UserError if a file that shall be written, in the end, is a folder, or would lie in what is none."""
    for path in paths:
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
        above = None if path is None else next(folder for folder in path.absolute().parents if folder.exists())
        if above is not None and not above.is_dir():
            raise UserError(f"{above} is no folder, so that {path} cannot lie in it; give another name")


def require_new(out: Path) -> None:
    """Raise UserError if a file or folder that shall be written is there, or its folder is not."""
    if out.exists():
        raise UserError(f"{out}: it is there already. Remove it, or give another name")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder. Make it, or give another name")
