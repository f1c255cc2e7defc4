"""How to see a dashboard from elsewhere."""

from __future__ import annotations

import os
import socket


def tunnel(address: str) -> str:
    """Return the command that brings a dashboard on this machine's loopback to the user's own machine.

    Inside a job of SLURM the way leads through the machine that the job was submitted from.
    """
    port = address.removeprefix("http://").split("/")[0].rsplit(":", 1)[-1]
    login = os.environ.get("SLURM_SUBMIT_HOST", "") if "SLURM_JOB_ID" in os.environ else ""
    through = f" -J {login}" if login and login != socket.gethostname() else ""
    return f"ssh -N -L {port}:127.0.0.1:{port}{through} {socket.gethostname()}"
