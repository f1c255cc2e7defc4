"""Files that driver and workers of a cluster share; the run's layout says in which folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClusterFiles:
    """A folder that the driver and all workers see.

    Attributes
    ----------
    root : Path
        Of the run; jobs start in it.
    folder : Path
        For what follows.
    logs : Path
        What workers print.
    """

    root: Path
    folder: Path
    logs: Path

    @property
    def tls(self) -> Path:
        """Folder of the certificate of the driver that runs, mode 0700."""
        return self.folder / "tls"

    @property
    def state(self) -> Path:
        """The driver that runs: machine, process, dashboard, name of its jobs."""
        return self.folder / "driver.json"

    @property
    def cancel(self) -> Path:
        """Its existence asks the driver to stop."""
        return self.folder / "cancel"

    @property
    def scheduler(self) -> Path:
        """The address of the scheduler that the rendered driver's job starts."""
        return self.folder / "scheduler.json"

    @property
    def rendered(self) -> Path:
        """Folder of the scripts that `render` wrote for the run, and their manifest."""
        return self.folder / "rendered.json"

    def script(self, worker: str) -> Path:
        """Return the job script of a worker, as submitted."""
        return self.folder / "jobs" / f"{worker}.sh"

    def log(self, worker: str) -> Path:
        """Return what a worker's job prints."""
        return self.logs / f"{worker}.log"

    def farewell(self, worker: str) -> Path:
        """Return what a worker makes when it is told to end."""
        return self.folder / "jobs" / f"{worker}.left"
