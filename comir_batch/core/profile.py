"""The profile of a site: which jobs a SLURM cluster runs our workers in; frozen, and every unknown key is an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from comir_batch.core.config import Section
from comir_batch.core.config_file import read_toml
from comir_batch.core.errors import ConfigError, wrong_fields
from comir_batch.core.task import Resource

if TYPE_CHECKING:
    from pathlib import Path

START_TIMEOUT_S = 300.0
_WALLTIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


def _no_shell(text: str) -> str:
    """Refuse what has no place in a directive of sbatch; a constraint may have its ``|`` and ``&``."""
    if re.search(r"[\n\r\0`$;<>]", text):
        raise ValueError("must not contain line breaks or characters that mean something to a shell")
    return text


def _one_line(text: str) -> str:
    if re.search(r"[\n\r\0]", text):
        raise ValueError("must be one line")
    return text


def _walltime(text: str) -> str:
    walltime_s(text)
    return text


Plain = Annotated[str, AfterValidator(_no_shell)]
Line = Annotated[str, AfterValidator(_one_line)]
Walltime = Annotated[str, AfterValidator(_walltime)]


class Jobs(Section):
    """Jobs of one kind of worker; each job runs one worker.

    Attributes
    ----------
    partition, qos, constraint : str
        As sbatch takes them; empty for the site's default.
    gres : str
        For example ``gpu:1``; empty for none.
    cpus : int
        Cores of a job. A CPU job takes one task at a time; more than ``register.threads`` help networks only.
    memory_gb : float
        Memory of a job in GiB, as asked of SLURM; a worker ends its task at 95 % of it, before SLURM would end the job.
    max_memory_gb : float
        Up to which a task that ran out of memory, or needs more from the start, gets a larger job; 0 for no more than
        `memory_gb`.
    walltime : str
        Of a job: minutes, ``mm:ss``, ``hh:mm:ss``, ``d-hh``, ``d-hh:mm`` or ``d-hh:mm:ss``.
    jobs : int
        Most jobs at once.
    directives : tuple of str
        Further options of sbatch, each with its dashes.
    idle_s : float
        After how long without work a job is given back.
    """

    partition: Plain = ""
    qos: Plain = ""
    constraint: Plain = ""
    gres: Plain = ""
    cpus: int = Field(default=2, ge=1)
    memory_gb: float = Field(default=6.0, gt=0)
    max_memory_gb: float = Field(default=0.0, ge=0)
    walltime: Walltime = "04:00:00"
    jobs: int = Field(default=4, ge=1)
    directives: tuple[Plain, ...] = ()
    idle_s: float = Field(default=300.0, gt=0)

    @model_validator(mode="after")
    def _limit_is_larger(self) -> Jobs:
        if 0 < self.max_memory_gb < self.memory_gb:
            raise ValueError(f"max_memory_gb {self.max_memory_gb:g} must not be below memory_gb {self.memory_gb:g}")
        return self

    @property
    def memory_mb(self) -> int:
        """Memory of a job in MiB."""
        return round(self.memory_gb * 1024)

    @property
    def limit_mb(self) -> int:
        """Most memory that a job may get, in MiB."""
        return max(self.memory_mb, round(self.max_memory_gb * 1024))


class GpuJobs(Jobs):
    """Jobs that run networks.

    Attributes
    ----------
    device : {"cuda", "cpu"}
        Where networks run there; with ``cuda`` a worker that sees no CUDA device refuses to start.
    slots : int
        Tasks that a worker has in hand at once: while one computes, others read and write.
    """

    gres: Plain = "gpu:1"
    cpus: int = Field(default=4, ge=1)
    memory_gb: float = Field(default=12.0, gt=0)
    jobs: int = Field(default=1, ge=1)
    device: Literal["cuda", "cpu"] = "cuda"
    slots: int = Field(default=2, ge=1)


class DriverJob(Section):
    """The job of a rendered run's driver, which lasts as long as the run, on one core.

    Attributes
    ----------
    partition, qos, walltime : str
        Empty for those of ``[cpu]``. At its walltime the driver goes back to the queue, and its workers wait for it.
    memory_gb : float
        In GiB.
    directives : tuple of str
        Further options of sbatch; those of ``[cpu]`` do not count.
    """

    partition: Plain = ""
    qos: Plain = ""
    walltime: Annotated[str, AfterValidator(lambda text: text and _walltime(text))] = ""
    memory_gb: float = Field(default=4.0, gt=0)
    directives: tuple[Plain, ...] = ()


class Profile(Section):
    """A site.

    Attributes
    ----------
    description : str
        For `profiles list`.
    account : str
        Of the jobs; empty for the user's default.
    image : str
        Apptainer image that workers run in, a path that compute nodes see; empty to run them without a container.
    python : str
        Without an image, the interpreter on the compute nodes; empty for that of the driver.
    apptainer : str
        Command that starts a container.
    modules : tuple of str
        Loaded with ``module load`` before a worker starts.
    prologue : tuple of str
        Lines of shell before a worker starts.
    binds : tuple of str
        Folders that the container sees besides those of the manifest, the models and the run directory.
    scratch : str
        Folder on the node for temporary files, for example ``$TMPDIR``; empty for what ``TMPDIR`` says, else /tmp,
        and in an image, which knows no ``TMPDIR`` of the node, for /tmp.
    interface : str
        Network interface of compute nodes, for example ``ib0``; empty for the one that leads to the driver.
    driver_interface, driver_host : str
        Interface or address at which workers reach the driver; one of them, or empty for the host's name.
    driver_port : int
        Port at which workers reach the driver; 0 for any.
    ask_memory : bool
        Whether jobs ask SLURM for their memory, which some sites refuse; workers keep to theirs either way.
    start_timeout_s : float
        How long a worker that has started may take to connect.
    poll_s : float
        How often the queue is looked at.
    cpu : Jobs
        Workers for all but networks.
    driver : DriverJob
        The job of a rendered run's driver.
    gpu : GpuJobs or None
        Workers for networks; without them CPU workers run the networks.
    """

    description: str = ""
    account: Plain = ""
    image: Line = ""
    python: Line = ""
    apptainer: Line = "apptainer"
    modules: tuple[Plain, ...] = ()
    prologue: tuple[Line, ...] = ()
    binds: tuple[Line, ...] = ()
    scratch: Line = ""
    interface: Plain = ""
    driver_interface: Plain = ""
    driver_host: Plain = ""
    driver_port: int = Field(default=0, ge=0, le=65535)
    ask_memory: bool = True
    start_timeout_s: float = Field(default=START_TIMEOUT_S, gt=0)
    poll_s: float = Field(default=30.0, gt=0)
    cpu: Jobs = Jobs()
    driver: DriverJob = DriverJob()
    gpu: GpuJobs | None = None

    @model_validator(mode="after")
    def _one_way_to_the_driver(self) -> Profile:
        if self.driver_interface and self.driver_host:
            raise ValueError("give driver_interface or driver_host, not both")
        return self

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where networks run."""
        return self.gpu.device if self.gpu else "cpu"

    @property
    def network_resource(self) -> Resource:
        """The kind of worker that runs networks."""
        return Resource.GPU if self.gpu else Resource.CPU

    def kinds(self) -> dict[Resource, Jobs]:
        """Return the jobs of each kind of worker that the site has."""
        return {Resource.CPU: self.cpu} | ({Resource.GPU: self.gpu} if self.gpu else {})


def load_profile(path: Path) -> Profile:
    """Read a profile.

    Raises
    ------
    ConfigError
        If the file is missing or not TOML, or a key or value is wrong; the message names each.
    """
    try:
        return Profile.model_validate(read_toml(path, "profile"))
    except ValidationError as error:
        raise ConfigError(f"wrong settings in the profile {path}: {wrong_fields(error, values=True)}") from error


def walltime_s(text: str) -> int:
    """Return the seconds of a walltime as SLURM writes it.

    Raises
    ------
    ValueError
        If it is not one.
    """
    match = _WALLTIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a walltime; write hh:mm:ss or d-hh:mm:ss")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    # d-hh[:mm[:ss]] and hh:mm:ss, else mm[:ss]
    weights = (3600, 60, 1) if days is not None or len(numbers) == 3 else (60, 1, 1)
    return 86400 * int(days or 0) + sum(number * weight for number, weight in zip(numbers, weights, strict=False))
