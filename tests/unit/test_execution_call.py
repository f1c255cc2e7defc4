"""What becomes of a task's errors: which are the program's, which the input's, which may be gone at the next try."""

from __future__ import annotations

import errno
import os

import pytest

from comir_batch.core.errors import UnreadableSlideError
from comir_batch.core.task import Task
from comir_batch.execution.call import run_task


def _outcome(*errors):
    """Run a task that raises the last of some errors, each of which led to the next."""

    def function(_):
        for before, error in zip((None, *errors), errors, strict=False):
            error.__cause__ = before
        raise errors[-1]

    return run_task(Task("a", function, None))


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "EMFILE", "ENFILE"])
def test_an_error_that_may_pass_is_a_loss_whoever_tells_it(name):
    number = getattr(errno, name)
    told = os.strerror(number)
    for errors in (
        (OSError(number, told, "/slides/a"),),
        (OSError(number, told), UnreadableSlideError(f"/slides/a: {told}")),
        (OSError(number, told), RuntimeError("cannot decode"), ValueError("no chunk")),
        (RuntimeError(f"{told} (os error {number})"),),
    ):
        outcome = _outcome(*errors)
        assert outcome.lost
        assert not outcome.disk_full
        assert "internal error" not in outcome.error


@pytest.mark.parametrize("error", [OSError(errno.ENOENT, "No such file"), RuntimeError("(os error 2)"), KeyError(5)])
def test_other_errors_are_no_loss(error):
    outcome = _outcome(error)
    assert not outcome.lost
    assert outcome.error.startswith("internal error: ")
