"""One driver at a time for a run directory, also where a file system's locks do not reach other machines.

The file is locked, names its holder and is touched every few seconds. Whoever gets the lock from a holder on another
machine watches for a while whether the file is still touched: network file systems often lock for one machine alone, or
not at all.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from comir_batch.core.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TOUCH_EVERY_S = 10.0
_SILENCE_S = 60.0  # after so long without a touch a holder is dead
_LONG_AGO_S = 600.0  # no clocks are so far apart that a holder could be alive that was last heard of then
_HELD = frozenset({errno.EACCES, errno.EAGAIN})
_FLOCK = "hhqqi"  # struct flock: type, whence, start, length, process
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL})


class RunLock:
    """The lock of a run directory, held until it is closed.

    Parameters
    ----------
    path : Path
        The file; in an existing folder.
    say : callable
        Takes sentences for the user.

    Raises
    ------
    RunDirectoryError
        If another driver holds it.
    """

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self._path = path
        self._me = f"process {os.getpid()} on {socket.gethostname()}"
        self._stream = path.open("a+b", buffering=0)
        try:
            self._take(say)
        except BaseException:
            self._stream.close()
            raise
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="run-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise RunDirectoryError if another driver has taken this one, which was silent for long, for dead."""
        holder = self._holder()
        if holder != self._me:
            raise RunDirectoryError(
                f"{self._path.parent} was taken over by {holder or 'another process'}; this one ends"
            )

    def close(self) -> None:
        """Give the lock back; a file that names nobody says that its holder ended in order."""
        self._closed.set()
        self._thread.join()
        if self._holder() == self._me:
            self._stream.truncate(0)
        self._stream.close()

    def _take(self, say: Callable[[str], object]) -> None:
        works = self._lock()
        holder = self._holder()
        proved = works and holder.endswith(f" on {socket.gethostname()}")  # within a machine locks are to be trusted
        if holder and not proved:
            self._wait_for_silence(holder, say)
            self._lock()  # to look at the file was to open and close it, which drops a process's locks
        self._stream.truncate(0)
        self._stream.write(f"{self._me}\n".encode())
        os.fsync(self._stream.fileno())

    def _lock(self) -> bool:
        """Return whether the file system has locks."""
        try:
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise self._in_use(self._holder()) from error
            if error.errno not in _NO_LOCKS:
                raise
            return False
        return True

    def _wait_for_silence(self, holder: str, say: Callable[[str], object]) -> None:
        touched = self._touched()
        if time.time() - touched < _LONG_AGO_S:
            say(f"{holder} has not given this run directory back; {_SILENCE_S:g} s will show whether it is alive")
            end = time.monotonic() + _SILENCE_S
            while time.monotonic() < end:
                time.sleep(_TOUCH_EVERY_S / 10)
                if self._touched() != touched:
                    raise self._in_use(holder)
        say(f"{holder} is silent and taken for dead; this driver goes on in its place")

    def _touched(self) -> float:
        # Opened anew, a file shows what other machines did to it; what is known of an open one may be old.
        with os.fdopen(os.open(self._path, os.O_RDONLY)) as stream:
            return os.fstat(stream.fileno()).st_mtime

    def _keep_alive(self) -> None:
        while not self._closed.wait(_TOUCH_EVERY_S):
            with suppress(OSError):  # a server that is away answers later
                os.utime(self._stream.fileno())

    def _holder(self) -> str:
        return os.pread(self._stream.fileno(), 1000, 0).decode(errors="replace").strip()

    def _in_use(self, holder: str) -> RunDirectoryError:
        remedy = "Wait for it or end it, or choose another --out"
        return RunDirectoryError(f"{self._path.parent} is in use by {holder or 'another process'}. {remedy}")


def holder(path: Path) -> str:
    """Return the process and machine that hold a run directory's lock, empty if none do; nothing is disturbed.

    To try the lock would be to hold it for a moment, and a driver might start just then. Where locks do not reach, a
    holder that touched the file lately counts as alive.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            named, touched = stream.read().strip(), os.fstat(stream.fileno()).st_mtime
            locked = _is_locked(stream.fileno())
    except FileNotFoundError:
        return ""
    here = named.endswith(f" on {socket.gethostname()}")
    alive = locked or ((locked is None or not here) and time.time() - touched < _SILENCE_S)
    return named if alive else ""


def _is_locked(file: int) -> bool | None:
    """Return whether another process has locked a file; None where the file system has no locks."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        answer = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return bool(answer[0] != fcntl.F_UNLCK)
