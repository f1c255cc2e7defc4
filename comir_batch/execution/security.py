"""TLS between driver, scheduler and workers: a certificate a run, which only its owner can read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from distributed.security import Security

from comir_batch.core.errors import NoWorkersError

if TYPE_CHECKING:
    from pathlib import Path

_CERTIFICATE, _KEY = "certificate.pem", "key.pem"


def make_certificate(folder: Path) -> Security:
    """Write a new self-signed certificate and its key, and return the security that rests on them.

    Parameters
    ----------
    folder : Path
        Made with mode 0700 if it is not there; the files have mode 0600. Workers need to see it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    temporary = Security.temporary()
    _write(folder / _CERTIFICATE, temporary.tls_scheduler_cert)
    _write(folder / _KEY, temporary.tls_scheduler_key)
    return read_certificate(folder)


def read_certificate(folder: Path) -> Security:
    """Return the security that rests on the certificate in a folder: whoever has it takes every part.

    Raises
    ------
    NoWorkersError
        If there is none.
    """
    certificate, key = folder / _CERTIFICATE, folder / _KEY
    if not (certificate.is_file() and key.is_file()):
        raise NoWorkersError(f"there is no certificate in {folder}; has the scheduler that made it ended?")
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=str(certificate),
        **{f"tls_{role}_cert": str(certificate) for role in roles},
        **{f"tls_{role}_key": str(key) for role in roles},
    )


def remove_certificate(folder: Path) -> None:
    """Remove the certificate, so that nothing can be started with it any more."""
    for name in (_CERTIFICATE, _KEY):
        (folder / name).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)
