"""Asking a run to stop: a flag that signals raise and executors look at."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from comir_batch.core.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

RESUMABLE = 75
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: RESUMABLE}


class StopRequest:
    """Whether a run was asked to stop, and the exit code that says by whom.

    Executors look at it between tasks, at least once a second where tasks run in other processes. Whoever owns the
    process decides what raises it: the command line uses `on_signals`.
    """

    def __init__(self) -> None:
        self._exit_code = 0

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
        self._exit_code = self._exit_code or exit_code

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
