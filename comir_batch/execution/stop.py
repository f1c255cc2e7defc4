"""Asking a run to stop: a flag that signals raise and executors look at."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comir_batch.core.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

RESUMABLE = 75
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: RESUMABLE}


class StopRequest:
    """Whether a run was asked to stop, and the exit code that says by whom.

    Executors look at it between tasks, at least once a second where tasks run in other processes. Whoever owns the
    process decides what raises it: the command line uses `on_signals`.

    Parameters
    ----------
    notify : callable or None
        Called with the first request; where signals request, from within their handler.
    """

    def __init__(self, notify: Callable[[], object] | None = None) -> None:
        self._exit_code = 0
        self._notify = notify

    @property
    def exit_code(self) -> int:
        """What the first request asked to exit with; 0 before it."""
        return self._exit_code

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
        if self.requested:
            raise StoppedError("stopped before the end; the same command resumes the run", self._exit_code)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT (130), SIGTERM (143) and SIGUSR1 (75) ask to stop while the block runs; main thread only.

        The second signal does not wait for running tasks: it raises KeyboardInterrupt where the program stands.
        """
        before = {number: signal.signal(number, self._on_signal) for number in _EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.request(_EXIT_CODES[signal.Signals(number)])
