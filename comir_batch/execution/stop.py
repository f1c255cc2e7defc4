"""Asking a run to stop: a flag that signals raise and executors look at."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comir_batch.core.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

RESUMABLE = 75
_GRACE_S = 2.0
_LOOK_EVERY_S = 2.0
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: RESUMABLE, signal.SIGHUP: 129}


class Existence:
    """Whether a file exists, looked at every other second: whoever cannot send a signal makes it.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked = float("-inf")

    def __call__(self) -> bool:
        """Return whether it exists, or False where it was looked at lately."""
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return False
        self._looked = now
        return self._path.exists()


class StopRequest:
    """Whether a run was asked to stop, and the exit code that says by whom.

    Executors look at it between tasks, at least once a second where tasks run in other processes. Whoever owns the
    process decides what raises it: the command line uses `on_signals`.

    Parameters
    ----------
    notify : callable or None
        Called with the first request; where signals request, from within their handler.
    drain_s : float
        How long running tasks may take to end where the end is foreseen (exit code 75); otherwise two seconds.
    wanted : callable or None
        Asked by `check`, besides: whether somebody elsewhere wants the run to stop.
    """

    def __init__(
        self,
        notify: Callable[[], object] | None = None,
        *,
        drain_s: float = _GRACE_S,
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        self._exit_code = 0
        self._notify = notify
        self._drain_s = drain_s
        self._wanted = wanted

    @property
    def exit_code(self) -> int:
        """What the first request asked to exit with; 0 before it."""
        return self._exit_code

    @property
    def grace_s(self) -> float:
        """How long tasks that are running may still take."""
        return self._drain_s if self._exit_code == RESUMABLE else _GRACE_S

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._exit_code != 0

    def request(self, exit_code: int = RESUMABLE) -> None:
        """Ask to stop; the first exit code stays."""
        first, self._exit_code = not self.requested, self._exit_code or exit_code
        if first and self._notify is not None:
            self._notify()

    def check(self) -> None:
        """Raise StoppedError if somebody asked to stop."""
        if not self.requested and self._wanted is not None and self._wanted():
            self.request(_EXIT_CODES[signal.SIGTERM])
        if self.requested:
            raise StoppedError("stopped before the end; the same command resumes the run", self._exit_code)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT (130), SIGTERM (143), SIGHUP (129) and SIGUSR1 (75) ask to stop in the block; main thread only.

        A SIGHUP that is ignored already, by `nohup`, stays ignored.

        The second signal does not wait for running tasks: it raises KeyboardInterrupt where the program stands.
        """
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heeded = [number for number in _EXIT_CODES if not (nohup and number is signal.SIGHUP)]
        before = {number: signal.signal(number, self._on_signal) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.request(_EXIT_CODES[signal.Signals(number)])
