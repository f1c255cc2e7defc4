"""The address at which workers reach this host, where nobody has named one."""

from __future__ import annotations

import ipaddress
import socket

from comir_batch.core.errors import ConfigError


def own_address() -> str:
    """Return this host's name, at which a scheduler listens and which workers on other hosts are told.

    Raises
    ------
    ConfigError
        If it is an address of this host alone, as on Debian and Ubuntu by default: workers would wait in vain.
    OSError
        If it is no address at all.
    """
    name = socket.gethostname()
    address = str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise ConfigError(
            f"this host's name {name} means {address}, where no other host reaches it: set driver_interface or "
            "driver_host in the profile (ip -brief address lists both), or give the scheduler --interface or --host"
        )
    return name
