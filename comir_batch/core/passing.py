"""Errors of the operating system that may be gone at the next try: neither a file nor the program is at fault."""

from __future__ import annotations

import errno
import re

OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})
PASSING = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO}) | OUT_OF_FILES
_RUST = re.compile(r"\(os error (\d+)\)")  # zarrs' errors have no number of their own


def passing_errno(error: BaseException | None) -> int:
    """Return the number of a passing error that an exception is, or that led to it; 0 if there is none."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = os_errno(error)
        if number in PASSING:
            return number
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return 0


def os_errno(error: BaseException) -> int:
    """Return the operating system's number of an error, of one of zarrs' too; 0 if it is none of the system's."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = _RUST.search(str(error))
    return int(told[1]) if told else 0
