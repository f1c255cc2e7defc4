"""The folder that a training, study or diagnosis fills: its own from the start, and one process's at a time."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal

from comir_batch.core.errors import ConfigError
from comir_batch.pipeline.run_lock import RunLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Kind = Literal["training", "study", "diagnosis"]


@contextmanager
def held(folder: Path, kind: Kind, say: Callable[[str], object]) -> Iterator[None]:
    """Hold a folder while it is filled. It must be new, empty, or marked as one that such work has begun to fill.

    So nothing in it is the user's own, and what the work needs no longer may be deleted. The mark is also the lock.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    kind : {"training", "study", "diagnosis"}
        Of work.
    say : callable
        Takes sentences for the user.

    Raises
    ------
    ConfigError
        If the folder holds anything else, or cannot be one.
    RunDirectoryError
        If another process holds it.
    """
    mark = folder / f".comir-batch-{kind}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{folder} cannot be made: a file is in its way. Choose another --out") from error
    if not mark.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds other files, not those of a {kind}; choose another --out")
    with closing(RunLock(mark, say)):
        yield
