"""Every exception that comir-batch raises on purpose.

::

    ComirBatchError
    ├── UserError                  the user can mend it; exit 3, nothing was run
    │   ├── ConfigError            a setting is wrong
    │   ├── ManifestError          rows of the manifest are wrong (carries every problem)
    │   ├── SlideError             an input image cannot be used
    │   │   ├── UnreadableSlideError
    │   │   └── MissingPixelSizeError
    │   ├── ModelError             a model is missing, broken or does not fit
    │   └── RunDirectoryError      the run directory is locked, or is not one
    ├── TaskError                  one task failed; its pair is a row with a reason
    │   ├── RegistrationError      elastix or the search gave no usable transform
    │   └── ShortOfMemoryError     a task needs more memory than it has; tried again with more
    └── ExecutionError             the resources failed, not the work
        ├── NoWorkersError         exit 5
        └── StoppedError           stopped before the end, resumable; exit 75, 130 or 143
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError


class ComirBatchError(Exception):
    """Base of all errors that comir-batch raises on purpose; its text is fit for a user's eyes."""


class UserError(ComirBatchError):
    """A mistake in the input that the user can mend; nothing was run."""


class ConfigError(UserError):
    """A setting is unknown, out of range or contradicts another."""


class Problem(NamedTuple):
    """One thing wrong with a manifest; row 1 is the header, row 0 the file itself."""

    row: int
    column: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"row {self.row}, column {self.column}: {_one_line(self.reason)}. {_one_line(self.remedy)}."


class ManifestError(UserError):
    """Rows of the manifest are wrong.

    Attributes
    ----------
    problems : tuple of Problem
        All of them, in the order of the rows.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SlideError(UserError):
    """An input image cannot be used."""


class UnreadableSlideError(SlideError):
    """A file is not an image, is damaged, or needs a reader that is not installed."""


class MissingPixelSizeError(SlideError):
    """An image has no pixel size and the manifest gives none."""


class ModelError(UserError):
    """A model is missing, broken, or does not fit the images."""


class RunDirectoryError(UserError):
    """A run directory is in use by another driver, or is not a run directory."""


class TaskError(ComirBatchError):
    """One task failed; its pair becomes a row with a reason and the others go on."""


class RegistrationError(TaskError):
    """The search or elastix gave no usable transform."""


class OutOfTimeError(RegistrationError):
    """elastix was stopped at its time limit."""


class ShortOfMemoryError(TaskError):
    """A task needs more memory than it has; it is tried again with more, where more is to be had."""


class ExecutionError(ComirBatchError):
    """The resources failed, not the work."""


class NoWorkersError(ExecutionError):
    """No worker could be had, or all of them were lost."""


class StoppedError(ExecutionError):
    """The run was stopped before its end; the same command resumes it.

    Attributes
    ----------
    exit_code : int
        75 (resumable), 130 (SIGINT) or 143 (SIGTERM).
    """

    def __init__(self, message: str, exit_code: int = 75) -> None:
        self.exit_code = exit_code
        super().__init__(message)


def wrong_fields(error: ValidationError, *, values: bool = False) -> str:
    """Return what is wrong with each field of settings, or of a card, in a line; with what was given, if asked."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'as a whole'}: {each['msg']}"
        + (f" (got {each['input']!r})" if values else "")
        for each in error.errors()
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
