"""What this process may use of its machine: a batch job's share, where it is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Allotment(NamedTuple):
    """Cores, and memory in bytes."""

    cores: int
    memory: int


def allotment(machine: Allotment, environment: Mapping[str, str]) -> Allotment:
    """Return the share of the machine that a SLURM job was given; all of it outside of one.

    Not every site confines jobs to their share by control groups, so what the operating system says is not enough.

    Parameters
    ----------
    machine : Allotment
        What the operating system says.
    environment : mapping of str to str
        Variables of the process.
    """

    def given(name: str) -> int:
        value = environment.get(name, "")
        return int(value) if value.isdecimal() else 0

    on_node = given("SLURM_CPUS_ON_NODE")
    cores = given("SLURM_CPUS_PER_TASK") or on_node
    # Both in MB; 0, which `--mem=0` gives, means all.
    megabytes = given("SLURM_MEM_PER_NODE") or given("SLURM_MEM_PER_CPU") * (on_node or cores)
    return Allotment(
        min(machine.cores, cores or machine.cores), min(machine.memory, megabytes * 2**20 or machine.memory)
    )
