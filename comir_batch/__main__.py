"""``python -m comir_batch`` is ``comir-batch``, for interpreters whose scripts are not on PATH."""

from __future__ import annotations

from comir_batch.cli.app import main

if __name__ == "__main__":
    main()
